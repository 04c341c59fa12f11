"""The root command: global options, the nouns, and what every error becomes.

Commands raise; only this module turns an exception into a line on stderr and an exit status.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.core import TyperGroup

from tuner import __version__
from tuner.cli import crash, dashboard, db, demo, doctor, launch, study, trial, worker
from tuner.cli.output import message
from tuner.cli.usage import usage_words
from tuner.errors import StudyFileError, TunerError

if TYPE_CHECKING:
    from typer._click import Context  # what the overridden methods are given; typer.Context is a subclass

HELP = """Find out which way of fine-tuning suits your model and your data, and how sure that answer is.

\b
Examples:
  tuner demo                          a real study in a few minutes, anywhere
  tuner study check my-study.yaml     say what is wrong before anything runs
  tuner study create my-study.yaml    store the question
  tuner worker start --until-done     train; start more workers on any box
  tuner study watch my-study          see how it goes
  tuner study report my-study         the answer, with its confidence
"""

EXIT_CODES = """\b
Exit codes:
  0    done                       65   the data cannot be used
  1    something went wrong       69   a database or device is out of reach
  2    wrong usage                75   may work later; try again
  3    the study finished with    78   a study file or setting is wrong
       no complete trial          130  interrupted
  4    not found
  5    exists already, or is in a state that forbids it

\b
Environment:
  TUNER_STORAGE  database URL, as --storage
  TUNER_FILES    folder of logs, caches and checkpoints, as --files
  TUNER_CHECKPOINTS  folder or URL of checkpoints alone, as --checkpoints
  TUNER_DEBUG=1  tracebacks, as --debug
  NO_COLOR       no colours
"""


ORDER = ("demo", "study", "trial", "worker", "launch", "dashboard", "db", "doctor")


class RootGroup(TyperGroup):
    """The root: runs a command and turns what it raises into a line and an exit status."""

    def list_commands(self, ctx: Context) -> list[str]:
        """The commands in the order in which a new user meets them."""
        return [name for name in ORDER if name in self.commands]

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read what stands before the command.

        Raises:
            typer.Exit: If there is a mistake in it, after its line was printed.
        """
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            _refuse(error, ctx=ctx)

    def invoke(self, ctx: Context) -> object:
        """Run the chosen command.

        Raises:
            typer.Exit: With the status of the error, after its line was printed.
        """
        debug = bool(ctx.params.get("debug"))
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except TunerError as error:
            if debug:
                message(crash.traceback_of(error).rstrip())
            _show(error)
            raise typer.Exit(error.exit_code) from error
        except (KeyboardInterrupt, typer.Abort) as error:
            message("\ninterrupted")
            raise typer.Exit(130) from error
        except BrokenPipeError as error:
            # The reader went away (`| head`): nothing to say, and nothing more may be flushed there at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except Exception as error:
            if isinstance(error, typer.Exit):
                raise
            if isinstance(error, typer.TyperException):
                _refuse(error, ctx=ctx)
            if debug:
                message(crash.traceback_of(error).rstrip())
                raise typer.Exit(1) from error
            path = crash.write(error)
            message(f"error: unexpected {type(error).__name__}; details without passwords are in {path}")
            message("run it again with 'tuner --debug ...' to see the traceback here")
            raise typer.Exit(1) from error


def _refuse(error: typer.TyperException, *, ctx: Context) -> NoReturn:
    """Say what is wrong with the command in one line.

    Raises:
        typer.TyperException: As it is, if it is a page of its own.
        typer.Exit: With the status of the error.
    """
    words = usage_words(error, ctx=ctx)
    if words is None:
        raise error
    message(f"error: {words}")
    raise typer.Exit(error.exit_code) from error


def _show(error: TunerError) -> None:
    text = str(error)
    if isinstance(error, StudyFileError):
        message(text)  # one line for each mistake, as editors and `grep -n` write them
    else:
        message(f"error: {text}")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tuner {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=RootGroup,
    name="tuner",
    help=HELP,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
app.add_typer(study.app, name="study")
app.add_typer(trial.app, name="trial")
app.add_typer(worker.app, name="worker")
app.add_typer(launch.app, name="launch")
app.command("dashboard", short_help="Show the studies in a browser, read-only.")(dashboard.serve)
app.command("demo", short_help="Run a small real study from its question to its report.")(demo.run)
app.command("doctor", short_help="Say whether this machine is ready, and how to mend it.")(doctor.examine)
app.add_typer(db.app, name="db")


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", envvar="TUNER_DEBUG", help="show tracebacks")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Options that stand before the command; the help is the application's."""
    if not debug and not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")  # warnings of libraries tell a user nothing to act on
