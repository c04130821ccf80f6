"""What a verb that computes sets up before it imports jax, and who is asking."""

import importlib.metadata
import logging
import os
import sys
import warnings
from pathlib import Path

arguments: list[str] = []
"""What the command was given; ``main`` sets it."""


def version() -> str:
    """Return the version of the installed package."""
    try:
        return importlib.metadata.version("alexnet-jax")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def cache_dir() -> Path:
    """Return the folder in which compiled programs are kept from run to run."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or Path(base) / "alexnet-jax" / "xla").expanduser()


HUGE_PAGES = "glibc.malloc.hugetlb"


def ask_for_huge_pages() -> None:
    """Start the process anew, once, with its memory in pages of 2 MiB.

    A step on CPU asks for gigabytes of scratch memory and gives them back; in pages of
    4 KiB, clearing and mapping them takes a tenth of its time. The C library reads this
    wish only when a process starts; one that does not know it ignores it.
    """
    wishes = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or HUGE_PAGES in wishes:
        return
    wishes = f"{wishes}:" if wishes else ""
    os.environ["GLIBC_TUNABLES"] = f"{wishes}{HUGE_PAGES}=1"
    os.execv(sys.executable, sys.orig_argv)


def set_up() -> None:
    """Keep compiled programs on disk, and keep the libraries' chatter off the screen.

    Call it first in a verb that computes. Warnings and errors of jax itself stay.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's: errors only
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in ("absl", "orbax", "tensorflow_datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # meant for programmers; --debug is for them

    import jax

    folder = cache_dir()
    if _writable(folder):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
