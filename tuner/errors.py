"""Every exception of tuner, in one tree.

::

    TunerError                       1   something went wrong; the message says what, why and the next step
    ├── UsageError                   2   the command was given wrongly
    ├── NotFoundError                4   no such study, trial or model
    ├── ConflictError                5   the thing exists already, or is in a state that forbids the act
    ├── DataError                   65   the user's data cannot be used as asked
    ├── UnavailableError            69   a database, a device or a file system cannot be reached
    │   └── PlaceError              69   a disk is full, or an object store gives no answer; nothing is wrong with the run
    ├── TemporaryError              75   it may work later without any change
    ├── ConfigurationError          78   a setting or a study file is wrong
    │   └── StudyFileError          78   a list of mistakes, each with file:line:column
    ├── LeaseLost                    –   another worker owns this run now; write nothing more
    └── TrialError                   –   how one trial ends badly; the study goes on
        ├── TrialInfeasible          –   this configuration cannot run here (wrong shape, …)
        │   └── TrialOutOfMemory     –   the memory of the device or of the box ran out
        └── TrialDiverged            –   loss or gradient became non-finite

The number is the exit status of the command line. The class docstring is the default message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TunerError(Exception):
    """tuner could not go on."""

    exit_code = 1

    def __init__(self, what: str = "", *, why: str = "", fix: str = "") -> None:
        """One line for people: what happened and where, why, and the next step.

        Args:
            what: What happened, with the name of the thing it happened to.
            why: The cause, if it is known and not already in ``what``.
            fix: The next step, as an imperative or a command to run.
        """
        self.what = what or (type(self).__doc__ or "").splitlines()[0].rstrip(".")
        self.why = why
        self.fix = fix
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole line: ``what - why; fix``."""
        line = f"{self.what} - {self.why}" if self.why else self.what
        return f"{line}; {self.fix}" if self.fix else line


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, or its type's name: ``MemoryError()`` has no text at all."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class UsageError(TunerError):
    """The command was given wrongly."""

    exit_code = 2


class NotFoundError(TunerError):
    """No such study, trial or model."""

    exit_code = 4


class ConflictError(TunerError):
    """The thing exists already, or its state forbids the act."""

    exit_code = 5


class DataError(TunerError):
    """The data cannot be used as asked."""

    exit_code = 65


class UnavailableError(TunerError):
    """A database, a device or a file system cannot be reached."""

    exit_code = 69


class PlaceError(UnavailableError):
    """What must be written finds no place here now."""

    def __init__(
        self,
        what: str = "",
        *,
        why: str = "",
        fix: str = "",
        place: str = "",
        needed: int = 0,
        is_refusal: bool = False,
    ) -> None:
        """See :class:`TunerError`.

        Args:
            what: What happened.
            why: The cause.
            fix: The next step.
            place: Folder or URL that did not take it.
            needed: Bytes that were to be written there; 0 if that is not known.
            is_refusal: Whether an object store answered, and said no.
        """
        super().__init__(what, why=why, fix=fix)
        self.place = place
        self.needed = needed
        self.is_refusal = is_refusal


class TemporaryError(TunerError):
    """It may work later without any change."""

    exit_code = 75


class ConfigurationError(TunerError):
    """A setting is wrong."""

    exit_code = 78


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One mistake in a study file.

    Attributes:
        key: Dotted path of the value, such as ``space.lora.r``; empty for the whole file.
        message: What is wrong, with the allowed values and a did-you-mean where there is one.
        line: 1-based line in the file, 0 when the study did not come from a file.
        column: 1-based column in the file, 0 when the study did not come from a file.
    """

    key: str
    message: str
    line: int = 0
    column: int = 0


class StudyFileError(ConfigurationError):
    """The study file has mistakes."""

    def __init__(self, problems: Sequence[Problem], *, source: str = "study") -> None:
        """All mistakes at once, in the order of the file.

        Args:
            problems: At least one mistake.
            source: The file's path as the user gave it.
        """
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        self.source = source
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        where = f"{self.source}:{problem.line}:{problem.column}" if problem.line else self.source
        return f"{where}: {problem.message}"


class LeaseLost(TunerError):
    """Another worker owns this run now; nothing was written."""


class TrialError(TunerError):
    """The trial ended badly."""


class TrialInfeasible(TrialError):
    """This configuration cannot run on this device."""


class TrialOutOfMemory(TrialInfeasible):
    """The memory of the device ran out."""

    def __init__(self, what: str = "", *, why: str = "", fix: str = "", micro_batch: int = 0) -> None:
        """One line for people, as everywhere, and what to try next.

        Args:
            what: What happened.
            why: The cause.
            fix: The next step.
            micro_batch: Rows with which another attempt should begin; 0: as if nothing were known, since even one row did
                not fit here.
        """
        self.micro_batch = micro_batch
        super().__init__(what, why=why, fix=fix)


class TrialDiverged(TrialError):
    """The loss or the gradient became non-finite."""
