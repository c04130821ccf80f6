"""What moves on a terminal while there is work; the other module that knows rich.

It is drawn only where stderr is a terminal; elsewhere there are plain lines, seldom
enough for a log.
"""

import os
import time
from typing import TYPE_CHECKING, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from alexnet_cli import view

if TYPE_CHECKING:
    from alexnet_jax.events import Advice, Dropped, Evaluated, Saved, Started, StepDone

LOG_SECONDS = 30  # from one line of progress to the next where nothing can move
LOG_SHARE = 0.1  # of the work, likewise


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
        self.console = view.console()
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
            ("run", view.short(event.run_dir)),
        ]  # fmt: skip
        if event.step:
            rows.append(("resumed", f"after step {event.step:,}"))
        self.line(view.pairs(rows))

    def step(self, event: "StepDone") -> None:
        """Show the figures of the last steps."""
        self.flush()
        assert self._begun is not None
        self._last, self.done = event, event.step
        self.tail = f"{view.clock(event.seconds_left)} left"
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
