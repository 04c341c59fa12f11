"""Text for terminals: nothing in it can take the terminal over, and lengths of time read well."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Text that is safe to print: all but line ends and tabs of what is not printable becomes ``?``.

    Names, labels and error texts come from files and databases that others may write.
    """
    return "".join(
        # Not printable: controls and so all escapes, bidirectional overrides, zero-width characters, lone surrogates, and
        # spaces beyond the plain one, which do no harm.
        character if character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs" else "?"
        for character in text
    )


def duration(seconds: float) -> str:
    """A length of time for people: ``4.2 s``, ``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
