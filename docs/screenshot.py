"""Run a command in a terminal of its own and draw what stays on it as an SVG.

Example::

    python docs/screenshot.py docs/images/train.svg alexnet train
"""

import os
import pty
import re
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 92


def screen(command: list[str]) -> str:
    """Return what the command leaves on a terminal, moving lines taken away."""
    received = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 1 << 16)
        received.extend(data)
        return data

    os.environ.update(COLUMNS=str(WIDTH), LINES="40", TERM="xterm-256color")
    pty.spawn(command, read)
    lines: list[str] = [""]
    row = 0
    # The few control sequences that rich's moving line needs; colours are kept.
    for token in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", received.decode()):
        if token == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif token == "\r":
            pass
        elif token.endswith("K") and token.startswith("\x1b"):
            lines[row] = ""
        elif token.endswith("A") and token.startswith("\x1b"):
            row = max(0, row - int(token[2:-1] or 1))
        elif token.endswith("m") or not token.startswith("\x1b"):
            lines[row] += token
    return "\n".join(lines).strip("\n")


def main() -> None:
    """Draw the command that the arguments after the file's name make."""
    out, *command = sys.argv[1:]
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.assemble(("$ ", "bold green"), shlex.join(command)))
        console.print(Text.from_ansi(screen(command)))
        svg = console.export_svg(title=shlex.join(command[:2]))
    # Without rich's web fonts: the picture asks no other host for anything.
    svg = re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)
    Path(out).write_text(svg.replace("Fira Code", "ui-monospace"))


if __name__ == "__main__":
    main()
