"""Lines and tables on a terminal; with ``progress`` all that knows rich.

Answers go to stdout, everything else to stderr.
"""

import functools
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text


def console(stderr: bool = True) -> Console:
    """Return the console of stderr, or of stdout."""
    return _console_of(sys.stderr if stderr else sys.stdout)


@functools.lru_cache(2)  # one a stream: what is printed goes above what moves
def _console_of(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False)


_errors: TextIO | None = None


def only_errors() -> None:
    """Print nothing from here on but errors: another process of the run prints."""
    global _errors
    _errors = sys.stderr
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def error(text: str) -> None:
    """Print one red line."""
    line = Text.assemble(("error: ", "bold red"), (text, "red"))
    _console_of(_errors or sys.stderr).print(line, soft_wrap=True)


def warn(text: str) -> None:
    """Print one yellow line."""
    _say(Text.assemble(("note: ", "bold yellow"), text))


def note(text: str = "") -> None:
    """Print one quiet line."""
    _say(Text(text, "dim"))


def _say(text: Text) -> None:
    console().print(text, soft_wrap=True)


def answer(*parts: RenderableType) -> None:
    """Print lines or tables on stdout; text is never broken into lines."""
    out = console(stderr=False)
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, str | Text))


def heading(text: str) -> Text:
    """Return a line that stands out."""
    return Text(text, "bold")


def pairs(rows: Iterable[tuple[str, str]]) -> Text:
    """Return names and values, one a line; nothing is broken or cut."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0) + 2
    text = Text()
    for name, value in rows:
        text.append(f"  {name:<{width}}", "cyan").append(f"{value}\n")
    text.rstrip()
    return text


def commands(title: str, lines: Iterable[str]) -> Text:
    """Return commands to copy, under a title."""
    text = Text.assemble((title, "bold"))
    for line in lines:
        command, comment, words = line.partition("  #")
        text.append(f"\n  {command}").append(comment + words, "dim")
    return text


def entry(name: str, facts: str, sentence: str) -> Text:
    """Return an entry of a list: a name, a few facts, and a sentence below."""
    text = Text.assemble((name, "bold cyan"), "  ", (facts, "dim"))
    for line in textwrap.wrap(sentence, 76):
        text.append(f"\n  {line}")
    return text


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    last: Sequence[str] | None = None,
) -> Table:
    """Return a table without frames.

    Args:
        columns: their titles.
        rows: texts.
        right: titles of the columns that hold numbers.
        last: a row of sums, set apart.
    """
    drawn = Table(box=None, header_style="dim", pad_edge=True, padding=(0, 2, 0, 0))
    for title in columns:
        drawn.add_column(
            title, justify="right" if title in right else "left", overflow="fold"
        )
    for row in rows:
        drawn.add_row(*row)
    if last is not None:
        drawn.add_row()
        drawn.add_row(*last, style="bold")
    return drawn


def guesses(rows: Sequence[tuple[str, float]], width: int) -> Text:
    """Return labels with bars and percentages, one a line."""
    longest = min(max(len(label) for label, _ in rows), width // 2)
    room = width - longest - 12
    text = Text()
    for place, (label, share) in enumerate(rows):
        best = place == 0
        full, part = divmod(round(share * room * 8), 8)
        bar = "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")
        label = label if len(label) <= longest else label[: longest - 1] + "…"
        text.append("" if best else "\n")
        text.append(f"  {label:<{longest}}  ", "bold" if best else "")
        text.append(f"{bar:<{room}}", "cyan" if best else "blue")
        text.append(f" {share:6.1%}", "bold" if best else "")
    return text


def failure(image: str, reason: str) -> Text:
    """Return why a picture cannot be read, in one line."""
    # The library's errors begin with the picture's name already.
    return Text(reason if image in reason else f"{image}: {reason}", "red")


def prediction(
    image: str,
    rows: Sequence[tuple[str, float]],
    reason: str | None,
    *,
    columns: tuple[int, int] | None,
    first: bool,
) -> None:
    """Print what one picture shows.

    Args:
        image: its name.
        rows: labels and probabilities, best first.
        reason: why there are none.
        columns: widths for the names and the labels, one line a picture; a block of
            lines each when None.
        first: whether it is the first one.
    """
    space = "" if first or columns else "\n"
    if reason is not None:
        answer(Text(space).append_text(failure(image, reason)))
    elif columns is None:
        width = min(console(stderr=False).width, 100) - 2
        answer(Text(space + image, "bold"), guesses(rows, width))
    else:
        width, name = console(stderr=False).width, min(columns[0], 42)
        label = min(columns[1], max(10, (min(width, 100) - name - 14) // 2))
        image = image if len(image) <= name else "…" + image[1 - name :]
        text = Text.assemble((f"{image:<{name}}", "bold"))
        for guess, share in rows[:2]:
            guess = guess if len(guess) <= label else guess[: label - 1] + "…"
            text.append(f"  {guess:<{label}} {share:4.0%}")
        answer(text)


def short(path: Path | str) -> str:
    """Return a path as the user would type it here."""
    path = Path(path)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def clock(seconds: float) -> str:
    """Return a duration as ``0:12`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
