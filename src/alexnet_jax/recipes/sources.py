"""What a recipe's file says beside its values: where each is from, and what came of it.

A run's own ``recipe.toml`` has only values; their sources are the comments of the file
it was started from.
"""

import re
import tomllib
from dataclasses import dataclass

from alexnet_jax.config import Config, Count, Fraction

_SECTION = re.compile(r"\[([\w.-]+)\]")


class Published(Config):
    """What others reached with a recipe, its ``[published]`` section.

    It decides nothing that a run computes, so it is no part of ``config.Recipe``.

    Attributes:
        top1_error: on the recipe's evaluation split.
        top5_error: likewise, where it was published.
        views: that were averaged, 1 or 10.
        source: where it is printed, and what it took.
    """

    top1_error: Fraction
    top5_error: Fraction | None = None
    views: Count = 1
    source: str


@dataclass(frozen=True)
class Sources:
    """The comments of a recipe's file.

    Attributes:
        about: the one at its head.
        keys: of values, by dotted key; what stands beside them.
        sections: of sections, by name; what stands above them.
    """

    about: str
    keys: dict[str, str]
    sections: dict[str, str]


def sources(text: str) -> Sources:
    """Read the comments of a recipe's file.

    Args:
        text: the file; a value lies on a line of its own.
    """
    about, section, above = "", "", []
    keys: dict[str, str] = {}
    sections: dict[str, str] = {}
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#"):
            above.append(line.lstrip("# "))
            continue
        comment = " ".join(above)
        if (found := _SECTION.match(line)) is not None:
            section = f"{found[1]}."
            if comment:
                sections[found[1]] = comment
        elif "=" in line:
            if not about and not section and not keys:
                about, comment = comment, ""
            key = line.partition("=")[0].strip()
            keys[section + key] = " ".join(filter(None, (comment, _beside(line))))
        above = []
    return Sources(
        about, {key: words for key, words in keys.items() if words}, sections
    )


def _beside(line: str) -> str:
    """Return the comment at the end of a line; a ``#`` inside a text begins none."""
    places = [place for place, letter in enumerate(line) if letter == "#"]
    for place in places:
        try:
            tomllib.loads(line[:place])
        except tomllib.TOMLDecodeError:
            continue
        return line[place:].lstrip("# ")
    return ""
