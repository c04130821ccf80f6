"""Devices as a mesh ``('data', 'tower')``, and what lies where on it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.errors import ConfigError
from alexnet_jax.table import Dense, Network

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
        owner = "this machine has" if jax.process_count() == 1 else "all hosts have"
        raise ConfigError(
            f"--devices {count}: {owner} {len(available)} "
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
    idle = {device.process_index for device in available}
    idle -= {device.process_index for device in available[:count]}
    if idle:
        raise ConfigError(
            f"--devices {count} leaves process {min(idle)} without one; leave "
            "--devices out, or start fewer processes"
        )
    grid = np.asarray(available[:count]).reshape(count // towers, towers)
    return Mesh(grid, ("data", "tower"), axis_types=(AxisType.Auto,) * 2)


def describe(mesh: Mesh, *, hybrid: bool = False) -> str:
    """Say in one line how the devices are used."""
    data, towers = mesh.devices.shape
    kind = mesh.devices.flat[0].device_kind
    split = "one tower on each of two devices" if towers == 2 else "towers together"
    if hybrid:
        split = f"fully connected layers divided over {data}"
    processes = len({device.process_index for device in mesh.devices.flat})
    where = f" of {processes} processes" if processes > 1 else ""
    return (
        f"{mesh.size} device{'s' * (mesh.size > 1)} ({kind}){where}: "
        f"{data} x data, {split}"
    )


def compiler_options(mesh: Mesh, *, runs_once: bool = False) -> dict[str, Any]:
    """Return what XLA should do otherwise than usual for the devices of ``mesh``.

    On CPU: leave convolutions to Eigen, for YNNPACK, which XLA now prefers, takes up
    to four times as long for those of net 145; and take registers as wide as there
    are, where XLA would keep to 256 bits.

    Args:
        mesh: the devices.
        runs_once: compile quickly; on CPU, drawing code2012's parameters then compiles
            in 0.8 s instead of 2.1, and gives the same bits. A training step that is
            compiled so takes a tenth longer, a forward pass four tenths.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    options: dict[str, Any] = {
        "xla_cpu_experimental_ynn_fusion_type": "",
        "xla_cpu_prefer_vector_width": 512,
    }
    if runs_once:
        options["xla_backend_optimization_level"] = 2
    return options


def hybrid(network: Network, devices: int) -> Network:
    """Return ``network`` with its fully connected layers divided over 'data'.

    Args:
        network: of one tower.
        devices: along 'data'.

    Raises:
        ConfigError: it has two towers or no such layer, or units do not divide.
    """
    if network.towers != 1:
        raise ConfigError(
            f"--hybrid is for networks of one tower; {network.name} has "
            f"{network.towers}: use --towers"
        )
    dense = [row for row in network.rows if isinstance(row, Dense)]
    if not dense:
        raise ConfigError(f"--hybrid: {network.name} has no layer to divide")
    for row in dense:
        if row.features % devices:
            fit = [n for n in range(1, devices) if row.features % n == 0]
            raise ConfigError(
                f"--hybrid: the {row.features} units of {row.name} do not divide over "
                f"{devices} devices; use --devices {fit[-1]}"
            )
    return dataclasses.replace(network, hybrid=True)


def check_batch(mesh: Mesh, batch_size: int, parts: int = 1) -> None:
    """Check that a batch divides over the mesh, and over a device's ``parts`` of it.

    Raises:
        ConfigError: it does not; the message names sizes that do.
    """
    shares = mesh.shape["data"]
    if batch_size % shares == 0 and batch_size % (shares * parts):
        raise ConfigError(
            f"run.accumulate {parts}: a device's {batch_size // shares} images do not "
            "divide into so many parts; use a divisor"
        )
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
