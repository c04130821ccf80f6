"""All that is drawn on a terminal; the only module that knows rich.

Answers go to stdout, everything else to stderr. A display that moves is drawn only
where stderr is a terminal; elsewhere there are plain lines, seldom enough for a log.
"""

import functools
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from alexnet_jax.events import Advice, Dropped, Evaluated, Saved, Started, StepDone

LOG_SECONDS = 30  # from one line of progress to the next where nothing can move
LOG_SHARE = 0.1  # of the work, likewise


def _console(stderr: bool = True) -> Console:
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
    _console().print(text, soft_wrap=True)


def answer(*parts: RenderableType) -> None:
    """Print lines or tables on stdout; text is never broken into lines."""
    console = _console(stderr=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str | Text))


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
        width = min(_console(stderr=False).width, 100) - 2
        answer(Text(space + image, "bold"), guesses(rows, width))
    else:
        width, name = _console(stderr=False).width, min(columns[0], 42)
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


class Progress:
    """One moving line at the bottom of the terminal; a context.

    Where stderr is no terminal: a plain line now and then.
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        """Begin.

        Args:
            title: what is being done.
            quiet: show nothing at all.
        """
        self.title = title
        self.console = _console()
        self.moving = self.console.is_terminal and not quiet
        self.quiet = quiet
        # What is shown: the bar, or in words a phase of unknown length.
        self.done, self.total, self.tail = 0, 0, ""
        self.phase: str | None = None
        self._spinner = Spinner("dots")
        self._logged_at, self._logged_done = time.monotonic(), 0
        self._live = Live(
            console=self.console,
            get_renderable=self.render,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if self.moving:
            self._live.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the display away; lines can still be printed."""
        self._live.stop()
        self.moving = False

    def render(self) -> RenderableType:
        """Return what is to be seen now."""
        if self.phase is not None or not self.total:
            self._spinner.update(text=Text(self.phase or self.title))
            return self._spinner
        line = Table.grid(padding=(0, 2, 0, 0), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True, justify="right")
        line.add_column(no_wrap=True, justify="right")
        line.add_row(
            Text(self.title, "bold"),
            ProgressBar(total=self.total, completed=self.done),
            f"{self.done:,}/{self.total:,}",
            self.tail,
        )
        return line

    def line(self, text: str | Text) -> None:
        """Print a line above the moving one."""
        if not self.quiet:
            self.console.print(text, soft_wrap=True)

    def advance(self, done: int, total: int, tail: str = "") -> None:
        """Show how far it is.

        Args:
            done: of the work.
            total: the work.
            tail: a few words more.
        """
        self.done, self.total, self.tail, self.phase = done, total, tail, None
        if self.due(done, total):
            self.line(f"{self.title}: {done:,} of {total:,}  {tail}".rstrip())

    def due(self, done: int, total: int) -> bool:
        """Tell whether a plain line is due, where nothing can move."""
        if self.moving or self.quiet:
            return False
        now = time.monotonic()
        waited = now - self._logged_at
        if waited < LOG_SECONDS and done - self._logged_done < LOG_SHARE * total:
            return False
        self._logged_at, self._logged_done = now, done
        return True

    def interrupt(self, text: str) -> None:
        """Say something from a signal handler: without taking any lock."""
        if self.moving:
            self.phase = text  # the next refresh shows it
        else:
            os.write(2, f"{text}\n".encode())


class Training(Progress):
    """The display of a run: a bar, the figures, and a line for each test."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        """Begin; see ``Progress``."""
        self._begun: Started | None = None
        self._last: StepDone | None = None
        self._tested: Evaluated | None = None
        self._saved: Saved | None = None
        self._titled = False
        super().__init__(title, quiet=quiet)

    def render(self) -> RenderableType:
        """Return the bar and the figures under it."""
        if self._last is None or self._begun is None or self.phase is not None:
            return super().render()
        last, figures = self._last, Table.grid(padding=(0, 2, 0, 0))
        figures.add_column()
        shown = self.figures(last)
        for _ in shown:
            figures.add_column(no_wrap=True)
        figures.add_row("", *(Text(name, "dim") for name in shown))
        figures.add_row("", *shown.values())
        return Group("", super().render(), figures)

    def figures(self, last: "StepDone") -> dict[str, str]:
        """Return the figures of the last steps, by title."""
        assert self._begun is not None
        epochs = self._begun.total_steps / self._begun.steps_per_epoch
        return {
            "epoch": f"{last.epoch:.1f}/{epochs:.0f}",
            "loss": f"{last.loss:<6.4f}",
            "top-1 error": f"{last.top1_error:.1%}",
            "top-5 error": f"{last.top5_error:.1%}",
            "rate": f"{last.learning_rate:<6.2g}",
            "images/s": f"{last.images_per_second:,.0f}",
            "input wait": f"{last.input_stall:.0%}",
        }

    def start(self, event: "Started") -> None:
        """Say what begins."""
        self._begun, self.phase = event, None
        self.done, self.total = event.step, event.end_step
        length = f"{event.total_steps:,} steps, {event.steps_per_epoch:,.1f} an epoch"
        if event.end_step < event.total_steps:
            length += f"; stops after {event.end_step:,}"
        rows = [
            ("pictures", f"{event.train_images:,} to learn, {event.eval_images:,} to "
             f"test, {event.classes:,} classes"),
            ("network", f"{event.parameters:,} parameters"),
            ("devices", event.mesh),
            ("rates", event.rates),
            ("length", length),
            ("run", short(event.run_dir)),
        ]  # fmt: skip
        if event.step:
            rows.append(("resumed", f"after step {event.step:,}"))
        self.line(pairs(rows))

    def step(self, event: "StepDone") -> None:
        """Show the figures of the last steps."""
        self.flush()
        assert self._begun is not None
        self._last, self.done = event, event.step
        self.tail = f"{clock(event.seconds_left)} left"
        if self.due(event.step, self._begun.end_step):
            figures = self.figures(event)
            told = ", ".join(f"{k} {v.strip()}" for k, v in figures.items())
            self.line(f"step {event.step:,}: {told}, {self.tail}")

    def evaluated(self, event: "Evaluated") -> None:
        """Remember a test; its line comes with what follows at once."""
        self._tested = event

    def saved(self, event: "Saved") -> None:
        """Remember a save."""
        self._saved = event

    def advice(self, event: "Advice") -> None:
        """Print what the user should know."""
        if not self.quiet:
            self.line(Text.assemble(("note: ", "bold yellow"), event.what))

    def dropped(self, event: "Dropped") -> None:
        """Say that the schedule moved."""
        self.flush()
        what = "the run ends" if event.ended else "learning rate divided by ten"
        self.line(f"step {event.step:,}: no better for a while: {what}")

    def flush(self) -> None:
        """Print the line of the last test and save."""
        tested, saved = self._tested, self._saved
        self._tested = self._saved = None
        if tested is None:
            return
        found = tested.result
        if not self._titled:
            self._titled = True
            self.line(
                Text(
                    "\n  epoch     step   top-1 error   top-5 error   log-prob",
                    "dim",
                )
            )
        self.line(
            f"  {tested.epoch:5.1f}  {tested.step:7,d}  {found.top1_error:12.2%}  "
            f"{found.top5_error:12.2%}  {found.log_prob:9.4f}"
            + ("   saved" if saved else "")
        )
