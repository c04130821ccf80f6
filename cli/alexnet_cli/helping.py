"""The help pages: plain text, grouped, examples as written; at once, without rich."""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

FIRST = ("Arguments", "Commands")  # then the panels as they come, options last
LAST = "Options"


class Verb(TyperCommand):
    """A command with our help page."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, such as ``INPUT...``."""
        pieces = super().collect_usage_pieces(ctx)
        return [re.sub(r"\{(\w+)\}", r"\1", piece) for piece in pieces]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        _write_page(self, ctx, formatter, {})


class Verbs(TyperGroup):
    """The list of commands with our help page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        found = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        rows = [
            (verb.name or "", inspect.cleandoc(verb.help or "").partition("\n")[0])
            for verb in found
            if verb is not None and not verb.hidden
        ]
        _write_page(self, ctx, formatter, {"Commands": rows})

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the order in which they were added."""
        return list(self.commands)


def _write_page(
    verb: Any, ctx: Any, formatter: Any, panels: dict[str, list[tuple[str, str]]]
) -> None:
    usage = verb.get_usage(ctx).removeprefix("Usage:")
    formatter.write(f"{_bold('Usage:')}{usage}\n")
    for paragraph in inspect.cleandoc(verb.help or "").split("\n\n"):
        formatter.write("\n")
        if "\n  " in paragraph:  # examples stay as they are
            head, _, lines = paragraph.partition("\n")
            formatter.write(f"{_bold(head)}\n{lines}\n")
        else:
            formatter.write_text(paragraph)
    for parameter in verb.get_params(ctx):
        if not parameter.hidden:
            panel = "Arguments" if isinstance(parameter, TyperArgument) else LAST
            panel = getattr(parameter, "rich_help_panel", None) or panel
            panels.setdefault(panel, []).append(_row(parameter))
    for panel in _in_order(panels):
        formatter.write(f"\n{_bold(panel + ':')}\n")
        with formatter.indentation():
            formatter.write_dl(panels[panel])


def _in_order(panels: Iterable[str]) -> list[str]:
    def place(panel: str) -> int:
        return FIRST.index(panel) if panel in FIRST else 9 if panel == LAST else 5

    return sorted(panels, key=place)


def _row(parameter: TyperArgument | TyperOption) -> tuple[str, str]:
    """Return the names of a parameter, and what it means."""
    flag = isinstance(parameter, TyperOption) and parameter.is_flag
    kind = parameter.metavar or ""
    names = ", ".join(parameter.opts)
    if isinstance(parameter, TyperArgument):
        names = kind or (parameter.name or "").upper()
    elif not flag and kind:
        names = f"{names} {kind}"
    default = parameter.show_default
    if default is True:
        default = "" if flag or parameter.default is None else f"{parameter.default}"
    text = parameter.help or ""
    if default:
        text += f" [{default}]"
    elif parameter.required and isinstance(parameter, TyperOption):
        text += " [required]"
    return names, text


def _bold(text: str) -> str:
    return typer.style(text, bold=True)
