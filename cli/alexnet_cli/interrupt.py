"""Ctrl-C and SIGTERM as a wish that a run grants after its step."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from alexnet_cli import progress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Remembers a signal until the run asks.

    Attributes:
        signal: the first that came, if any.
        armed: whether there is something to save. Before that a signal ends the
            process at once.
    """

    def __init__(self) -> None:
        """Begin with no signal."""
        self.signal: signal.Signals | None = None
        self.armed = False
        self._more = 0

    def asked(self) -> bool:
        """Tell the run whether to stop."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, as shells count."""
        return 128 + (self.signal or signal.SIGINT)

    @contextlib.contextmanager
    def listening(self, screen: progress.Progress) -> Iterator[None]:
        """Catch the signals; the display says what happens."""

        def handle(number: int, frame: FrameType | None) -> None:
            caught = signal.Signals(number)
            if not self.armed:
                self.signal = caught
                raise KeyboardInterrupt
            if self.signal is None:
                self.signal = caught
                screen.interrupt(f"{caught.name}: finishing the step, then saving")
            elif caught == signal.SIGINT:
                self._more += 1
                if self._more > 1:
                    raise KeyboardInterrupt
                screen.interrupt("saving; Ctrl-C once more quits without")

        before = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Together(Stop):
    """The same wish among several processes: JAX hears SIGTERM and tells all."""

    def __init__(self) -> None:
        """Begin with no signal."""
        from alexnet_jax import hosts

        super().__init__()
        self.signal = signal.SIGTERM  # the only one a watched worker is sent
        self._all_stop = hosts.stopping()

    def asked(self) -> bool:
        """Tell the run whether to stop; True on all processes at the same step."""
        return self._all_stop()

    @contextlib.contextmanager
    def listening(self, screen: progress.Progress) -> Iterator[None]:
        """Leave the signals to JAX."""
        yield
