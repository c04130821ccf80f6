"""A page about runs: what came of them, how, and what they learned, in one file.

``gather`` reads a run and tests its checkpoint once more, ``write`` makes the page.
"""

from alexnet_jax.report.gather import Gathered, gather
from alexnet_jax.report.page import check_page, write

__all__ = ["Gathered", "check_page", "gather", "write"]
