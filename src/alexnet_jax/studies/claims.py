"""What the paper says its network loses without each of its parts.

Errors are percentages; a difference is without the part less with it. Where the paper
gives no number, what it says in words has a sign that can be tested all the same.
"""

from dataclasses import dataclass
from typing import Literal

Judged = Literal["test", "train", "overfitting"]
"""Which error a claim is about: top-1 on the evaluation split, top-1 on training
pictures, or the first less the second."""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        part: what is taken away, as a row of ``ablate``.
        section: of the paper.
        says: the claim, in a few words.
        judged: the error that must rise without the part if it is true.
        top1, top5: by how many percentage points, where a number is given.
        more: whether ``top1`` is the least.
        source: of the numbers, where it is not the text.
    """

    part: str
    section: str
    says: str
    judged: Judged = "test"
    top1: float | None = None
    top5: float | None = None
    more: bool = False
    source: str = ""

    @property
    def number(self) -> str:
        """The paper's difference as text; what it says where there is none."""
        if self.top1 is None:
            return self.says
        sign = "at least +" if self.more else "+"
        top5 = "" if self.top5 is None else f" / +{self.top5:g}"
        return f"{sign}{self.top1:g}{top5}"


NORM = Claim(
    "norm", "3.3", "response norm helps generalisation", top1=1.4, top5=1.2,
    source="net 148 of the 2012 code, which has none of the three norms",
)  # fmt: skip
OVERLAP = Claim(
    "overlap", "3.4", "overlapping pools make it harder to overfit", top1=0.4, top5=0.3,
    source="net 147 of the 2012 code",
)  # fmt: skip
TOWERS = Claim(
    "towers", "3.2", "two towers against one of half as many kernels",
    top1=1.7, top5=1.2, source="net 145-half of the 2012 code",
)  # fmt: skip
DROPOUT = Claim("dropout", "4.2", "substantial overfitting", "overfitting")
COLOUR = Claim(
    "colour", "4.1", "colour noise lowers the error", top1=1.0, more=True
)  # fmt: skip
CROPS = Claim("crops", "4.1", "substantial overfitting", "overfitting")
DECAY = Claim("decay", "5", "a higher training error", "train")

CLAIMS = {
    claim.part: claim
    for claim in (NORM, OVERLAP, TOWERS, DROPOUT, COLOUR, CROPS, DECAY)
}

# On CIFAR-10 the paper has a number of its own for response norm.
CIFAR_NORM = Claim(
    "norm", "3.3", "response norm helps generalisation", top1=2.0,
    source="13% to 11% with a four-layer network on CIFAR-10, which also grew wider",
)  # fmt: skip

LAYER = "layer:"


def layer(name: str) -> Claim:
    """Return the claim about any middle convolution."""
    says = "removing any middle layer loses about 2%"
    return Claim(f"{LAYER}{name}", "3.5", says, top1=2.0)


def find(part: str, spec: str) -> Claim:
    """Return the claim about a part.

    Args:
        part: a row of ``ablate``.
        spec: of the data.
    """
    if part.startswith(LAYER):
        return layer(part.removeprefix(LAYER))
    if part == "norm" and spec == "tfds:cifar10":
        return CIFAR_NORM
    return CLAIMS[part]
