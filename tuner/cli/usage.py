"""A command that was given wrongly, in one line: which argument, what it must be, what was given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from tuner.study.names import nearest, printable

if TYPE_CHECKING:
    from typer._click import Context  # what the overridden methods of the root are given

_SHOWN = 60  # characters of a wrong value that are repeated
_NO_COMMAND = re.compile(r"No such command '(.*?)'(?:\.| Did you mean|$)")
_EXTRA = re.compile(r"Got unexpected extra argument.*? \((.*)\)$")
_NOT_ONE_OF = re.compile(r"'.*' is not one of (.*?)\.?")
_MUST_BE = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "greater_than_equal": "at least {ge:,}",
    "greater_than": "above {gt:,}",
    "less_than_equal": "{le:,} at most",
    "less_than": "below {lt:,}",
}
"""What a value must be, by the kind of the validator's error; each is formatted with the error's own bounds."""


def usage_words(error: typer.TyperException, *, ctx: Context) -> str | None:
    """What is wrong with a command, and where its help is.

    Args:
        error: What the library raised.
        ctx: Of the root command; for errors that do not say which command they belong to.

    Returns:
        One line; None for the library's own pages, such as the help of a command that was given nothing.
    """
    if "\n" in error.message:
        return None
    at = getattr(error, "ctx", None)
    command = at.command_path if at is not None else " ".join(filter(None, (ctx.command_path, ctx.invoked_subcommand)))
    return f"{_what(error, at=at or ctx)} (see: {command} --help)"


def _what(error: typer.TyperException, *, at: Context) -> str:
    option = getattr(error, "option_name", None)
    if hasattr(error, "possibilities") and option is not None:
        near = error.possibilities[0] if error.possibilities else None
        return f"unknown option {_quoted(option)}" + (f'; did you mean "{near}"?' if near else "")
    if found := _NO_COMMAND.match(error.message):
        near = nearest(found[1], getattr(at.command, "commands", ()))
        return f"unknown command {_quoted(found[1])}" + (f'; did you mean "{near}"?' if near else "")
    if isinstance(error, typer.BadParameter) and error.param is not None:
        name = _name(error.param)
        if hasattr(error, "param_type"):  # of what was not given at all
            return f"{name} is missing"
        reports = getattr(error.__cause__, "errors", None)  # the validator's; its message is for programmers
        return f"{name} {_must_be(reports()[0])}" if reports is not None else f"{name}: {error.message.rstrip('.')}"
    if option is not None:
        return f"{option} needs a value" if "requires" in error.message else f"{option} takes no value"
    if found := _EXTRA.match(error.message):
        return f"{_quoted(found[1])} is more than this command takes"
    text = " ".join(error.format_message().split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _quoted(text: str) -> str:
    """As :func:`tuner.study.messages.quoted`, whose module loads the study file's models: every command starts here."""
    return f'"{printable(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")}"'


def _name(param: Any) -> str:
    """An option or argument as people write it."""
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    return str(param.metavar or param.name).rstrip(".")


def _must_be(report: Mapping[str, Any]) -> str:
    """What one value must be, and what was given."""
    given = report["input"]
    got = f"got {_quoted(given) if isinstance(given, str) else given}"
    must_be = _MUST_BE.get(report["type"])
    if must_be is not None:
        return f"must be {must_be.format(**report.get('ctx', {}))}, {got}"
    text = str(report["msg"]).removeprefix("Value error, ")
    if found := _NOT_ONE_OF.fullmatch(text):
        return f"must be one of {found[1].replace(chr(39), '')}, {got}"
    return f"{text[:1].lower()}{text[1:]}, {got}"
