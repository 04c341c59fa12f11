"""``tuner db``: the schema of the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.cli.options import Json, Storage
from tuner.cli.output import emit, line, message, next_steps
from tuner.cli.problems import examine, problem_documents, show_problems
from tuner.cli.roles import make, preview
from tuner.errors import ConfigurationError, TunerError, UnavailableError, UsageError

if TYPE_CHECKING:
    from tuner.store.schema import SchemaState

app = typer.Typer(
    help="""Prepare the database. `tuner study create` does it too.

\b
Examples:
  tuner db init --storage postgresql://tuner@db/tuner
  tuner db check
  tuner db upgrade
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def init(
    *,
    storage: Storage = None,
    roles: Annotated[bool, typer.Option("--roles", help="also make three roles: owner, worker, viewer")] = False,
    role_prefix: Annotated[str, typer.Option("--role-prefix", metavar="NAME", help="how their names begin")] = "tuner",
    passwords: Annotated[
        Path,
        typer.Option(
            "--passwords",
            metavar="DIR",
            help="a file for each role with its password; those that are missing are made (0600)",
        ),
    ] = Path("secrets"),
    ask: Annotated[bool, typer.Option("--ask", help="ask for the passwords instead; nothing is written")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the SQL of --roles, change nothing")] = False,
) -> None:
    """Create the tables where they are missing. Safe to run again, and from many places at once.

    With --roles, connected as somebody who may create roles: NAME_owner may change the tables, NAME_worker may run workers, NAME_viewer
    may read. Passwords never appear on the command line or in what is printed.

    \b
    Examples:
      tuner db init
      tuner db init --storage postgresql://tuner@db/tuner
      tuner db init --storage postgresql://postgres@db/tuner --roles --passwords /etc/tuner
      tuner db init --storage mysql://root@db/tuner --roles --dry-run
    """
    from tuner.store import location
    from tuner.store.database import Database

    if dry_run and not roles:
        raise UsageError("--dry-run prints what --roles would do", fix="tuner db init --roles --dry-run")
    url = location.storage_url(storage)
    if dry_run:
        with Database(location.parse_url(url)) as database:
            for statement in preview(database, prefix=role_prefix):
                line(f"{statement};")
        return
    with Database.open(url, create=True) as database:
        line(f"database {database.safe_url} is ready")
        if roles:
            make(database, prefix=role_prefix, folder=None if ask else passwords)
            return
    next_steps("tuner study create FILE", storage=storage)


@app.command()
def upgrade(*, storage: Storage = None) -> None:
    """Bring the tables of an older tuner to this one's schema. Make a backup first.

    \b
    Examples:
      tuner db upgrade
    """
    from tuner.store import location, schema
    from tuner.store.database import Database

    url = location.parse_url(location.storage_url(storage))
    require_file(location.sqlite_path(url))
    with Database(url) as database:
        before = schema.read_state(database)
        after = schema.upgrade(database)
        if before.tuner == after.tuner:
            line(f"database {database.safe_url} has the schema of this tuner already ({after.tuner})")
        else:
            line(f"database {database.safe_url}: schema {before.tuner or 'none'} is now {after.tuner}")


@app.command()
def check(
    *,
    storage: Storage = None,
    as_json: Json = False,
    fix: Annotated[bool, typer.Option("--fix", help="mend what is wrong; each repair is written down")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="look at the schema alone")] = False,
) -> None:
    """Say whether the tables fit this tuner, and whether what is in them agrees with itself.

    Looked for are trials that run without anybody running them, numbers that are missing or doubled, and rows that contradict each other or
    Optuna's. The status is 78 if the schema does not fit, and 1 if something is wrong that was not mended.

    \b
    Examples:
      tuner db check
      tuner db check --fix
      tuner db check --json
    """
    from tuner.store import location, schema
    from tuner.store.database import Database
    from tuner.store.encryption import read_encryption

    url = location.parse_url(location.storage_url(storage))
    require_file(location.sqlite_path(url))
    with Database(url, read_only=not fix) as database:
        state = schema.read_state(database)
        encryption = read_encryption(database)
        problems = examine(database, fix=fix) if state.is_current and not quick else ()
        if as_json:
            document = {"database": database.safe_url, **schema_document(state), "connection": str(encryption)}
            emit({**document, "problems": problem_documents(problems)})
        else:
            line(f"database {database.safe_url}")
            line(f"  tuner schema   {state.tuner or 'none'} (this tuner needs {state.tuner_head})")
            line(f"  optuna schema  {state.optuna or 'none'} (this Optuna needs {state.optuna_head})")
            line(f"  connection     {encryption}")
            if not quick:
                show_problems(problems)
    if encryption.advice:
        message(f"warning: the connection is {encryption}; {encryption.advice}")
    if not state.is_current:
        message("the schema does not fit")
        next_steps("tuner db init" if state.tuner is None else "tuner db upgrade", storage=storage)
        raise typer.Exit(ConfigurationError.exit_code)
    if not all(is_mended for _, is_mended in problems):
        next_steps("tuner db check --fix", storage=storage)
        raise typer.Exit(TunerError.exit_code)


def require_file(path: Path | None) -> None:
    """Refuse a SQLite file that is not there: connecting to it would create it.

    Raises:
        UnavailableError: If it is not there.
    """
    if path is not None and not path.exists():
        raise UnavailableError(f"no database at {path}", fix="tuner db init, or name another with --storage")


def schema_document(state: SchemaState) -> dict[str, Any]:
    """The two schemas, as JSON."""
    return {
        "is_current": state.is_current,
        "tuner": state.tuner,
        "tuner_needed": state.tuner_head,
        "optuna": state.optuna,
        "optuna_needed": state.optuna_head,
    }
