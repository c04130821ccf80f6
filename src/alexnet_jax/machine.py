"""What computes: processor, devices and versions, as a run's record names them."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.data.memory import cores

PACKAGES = ("alexnet-jax", "jax", "jaxlib", "flax", "optax", "numpy")


def facts() -> dict[str, Any]:
    """Return what a number needs beside it to be understood; plain JSON.

    Returns:
        ``processor``, ``cores`` (that this process may use), ``devices`` (JAX's, such
        as ``2 x NVIDIA H100``), ``system``, ``python`` and ``versions`` by package.
    """
    kinds = [device.device_kind for device in jax.devices()]
    return {
        "processor": _processor(),
        "cores": cores(),
        "devices": ", ".join(f"{kinds.count(k)} x {k}" for k in dict.fromkeys(kinds)),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    """Return the name that the processor goes by."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
