"""Whether the place for checkpoints takes them, where it is one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuner.cli.checkup.finding import Finding, Level
from tuner.cli.checkup.machine import check_disk
from tuner.errors import TunerError

_NAME = "checkpoints"


def check_checkpoints() -> Iterator[Finding]:
    """The folder or object store of ``TUNER_CHECKPOINTS``; an object store is written to, read and left as it was."""
    from tuner.files.place import is_url
    from tuner.files.remote import RemoteFolder
    from tuner.store.location import checkpoint_place

    try:
        place = checkpoint_place(None)
        if not place:
            return
        if not is_url(place):
            yield check_disk(_NAME, Path(place))
            return
        RemoteFolder(place).check()
    except TunerError as error:
        text = f"{error.what} - {error.why}" if error.why else error.what
        yield Finding(name=_NAME, level=Level.FAIL, text=text, fix=error.fix, status=error.exit_code)
        return
    yield Finding(name=_NAME, level=Level.OK, text=f"{place} takes what is written to it")
