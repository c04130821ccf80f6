"""Devices as a mesh ``('data', 'tower')``, and what lies where on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.errors import ConfigError
from alexnet_jax.table import Network

# Any: in a tree of specs they stand where arrays stand in the tree of data.
BATCH: Any = P("data")
"""A batch is divided over 'data'; both towers of a replica see the same images."""

SHARED: Any = P()
"""The same on every device."""


def make_mesh(
    network: Network,
    *,
    devices: int | None = None,
    towers: int | None = None,
    available: Sequence[Any] | None = None,
) -> Mesh:
    """Lay devices out for a network.

    Args:
        network: the table; only one with two towers can lie on two devices a replica.
        devices: how many to use; all when None.
        towers: devices that one network is split over, 1 or 2. When None: 2 if the
            network has two towers and the number of devices is even, else 1.
        available: the ``jax.Device``s to choose from; JAX's own when None.

    Raises:
        ConfigError: more devices than there are, or towers that do not fit.
    """
    available = jax.devices() if available is None else available
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        raise ConfigError(
            f"--devices {count}: this machine has {len(available)} "
            f"({available[0].platform}); use 1 to {len(available)}"
        )
    if towers is None:
        towers = 2 if network.towers == 2 and count % 2 == 0 else 1
    if towers not in (1, 2) or towers > network.towers:
        raise ConfigError(
            f"--towers {towers}: {network.name} has {network.towers} tower"
            f"{'s' * (network.towers > 1)}; use --towers 1"
        )
    if count % towers:
        even = count + 1 if count < len(available) else count - 1
        choice = f"--devices {even} or " if even else ""
        raise ConfigError(
            f"--towers 2 needs an even number of devices, not {count}; "
            f"use {choice}--towers 1"
        )
    grid = np.asarray(available[:count]).reshape(count // towers, towers)
    return Mesh(grid, ("data", "tower"), axis_types=(AxisType.Auto,) * 2)


def describe(mesh: Mesh) -> str:
    """Say in one line how the devices are used."""
    data, towers = mesh.devices.shape
    kind = mesh.devices.flat[0].device_kind
    split = "one tower on each of two devices" if towers == 2 else "towers together"
    return f"{mesh.size} device{'s' * (mesh.size > 1)} ({kind}): {data} x data, {split}"


def compiler_options(mesh: Mesh) -> dict[str, Any]:
    """Return what XLA should do otherwise than usual for the devices of ``mesh``.

    On CPU: leave convolutions to Eigen. YNNPACK, which XLA now prefers, takes up to
    four times as long for those of net 145.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": ""}


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Check that a batch divides over the mesh.

    Raises:
        ConfigError: it does not; the message names sizes that do.
    """
    shares = mesh.shape["data"]
    if batch_size % shares:
        below, above = batch_size // shares * shares, -(-batch_size // shares) * shares
        choice = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(
            f"batch_size {batch_size} does not divide over {shares} devices; "
            f"use {choice}, or other --devices"
        )


def shardings(mesh: Mesh, specs: object) -> object:
    """Turn a tree of partition specs into shardings on ``mesh``."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda leaf: isinstance(leaf, P),
    )
