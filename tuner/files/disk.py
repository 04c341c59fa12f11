"""Disks that are full: told apart from other errors, and how much room there is."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

# A quota and a limit on the size of files end as a full disk does: with nothing that trying again would change.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# safetensors tells of errors of the system in words, and so does shutil of those of a whole tree.
_IN_WORDS = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


def is_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that there is no room left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(int(one or other) in _FULL for one, other in _IN_WORDS.findall(str(seen))):
            return True
        seen = seen.__cause__
    return False


def free_bytes(folder: Path) -> int:
    """Room for a user without privileges on the disk of a folder, or of what will be its parent.

    Raises:
        OSError: If that cannot be told.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    facts = os.statvfs(existing)
    return facts.f_bavail * facts.f_frsize
