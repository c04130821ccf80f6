"""Processes that take turns, so that a busy neighbour slows each side alike.

A worker says ``ready``, then does a piece of work each time a line comes and answers
with numbers; when its input ends it says a JSON object and goes. Between its turns it
is stopped, with all its threads and children: nothing is read ahead at others' expense.
"""

import atexit
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence


class Worker:
    """A process that does a step when it is told to, and says how long it took."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        atexit.register(self.kill)
        assert self.read() == "ready"
        self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)

    def read(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit(f"a worker ended: {self.process.args}")
        return line

    def step(self) -> list[float]:
        assert self.process.stdin
        self.signal(signal.SIGCONT)
        print("go", file=self.process.stdin, flush=True)
        numbers = [float(number) for number in self.read().split()]
        self.signal(signal.SIGSTOP)
        return numbers

    def finish(self) -> dict:
        assert self.process.stdin
        self.signal(signal.SIGCONT)
        self.process.stdin.close()
        last = json.loads(self.read())
        self.process.wait()
        return last


def has(python: str, module: str) -> bool:
    """Say whether an interpreter has a module, without loading it."""
    find = f"import importlib.util as i, sys; sys.exit(not i.find_spec('{module}'))"
    try:
        return not subprocess.run([python, "-c", find], capture_output=True).returncode
    except OSError:
        return False


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return the median, the smallest and the largest, and how many there are."""
    numbers = statistics.median(values), min(values), max(values)
    middle, low, high = (format(number, form) for number in numbers)
    return f"{middle} ({low} to {high}, n = {len(values)})"
