"""Many processes as one run, on JAX's own runtime (``jax.distributed``).

Process 0 is the first: it holds the coordinator, decides what must be decided once,
and writes what is written once. With a single process every function here is the
plain thing that its name says, so that callers need not ask.
"""

import functools
import itertools
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from alexnet_jax import errors
from alexnet_jax.errors import AlexNetError, ConfigError

T = TypeVar("T")

HEARTBEAT_SECONDS = 20
"""A process that is silent for so long is dead: JAX then ends all others. Its own
default is 100; the others are to stop within a minute."""

_LEAVING_SECONDS = 60  # that the processes have to end together


def check_flags(
    coordinator: str | None, processes: int | None, process_id: int | None
) -> None:
    """Check what the three flags say, without touching the network.

    Raises:
        ConfigError: one is missing, or a number or the address cannot be.
    """
    flags = {
        "--coordinator": coordinator,
        "--processes": processes,
        "--process-id": process_id,
    }
    missing = [flag for flag, value in flags.items() if value is None]
    if len(missing) == len(flags):
        return
    if missing:
        raise ConfigError(
            f"{', '.join(flags)} go together; {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing"
        )
    assert coordinator is not None
    assert processes is not None
    assert process_id is not None
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 2**16):
        raise ConfigError(
            f"--coordinator {coordinator}: give process 0's HOST:PORT, such as "
            "10.0.0.1:1234"
        )
    if processes < 1:
        raise ConfigError(f"--processes {processes}: give 1 or more")
    if not 0 <= process_id < processes:
        raise ConfigError(
            f"--process-id {process_id}: {processes} processes are numbered "
            f"0 to {processes - 1}"
        )


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 60,
) -> list[str]:
    """Make this process one of a run's; call it before anything uses a device.

    Args:
        coordinator: ``HOST:PORT`` of process 0. When None, JAX asks the launcher
            (SLURM, Open MPI, Kubernetes) for all three.
        processes: how many there are.
        process_id: which one this is, from 0.
        timeout: seconds to wait for the coordinator and for the other processes.

    Returns:
        The host of each process, in order.

    Raises:
        ConfigError: the coordinator cannot be reached, or the numbers cannot be. What
            JAX finds out later (two processes with one id, one that never comes) ends
            the process in a native abort.
    """
    check_flags(coordinator, processes, process_id)
    if coordinator is not None and process_id is not None:
        if process_id == 0:
            _check_free(coordinator)
        else:
            _await(coordinator, timeout)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            # Flags are all there is to know: no launcher picks this process's devices.
            cluster_detection_method=None if coordinator is None else "deactivate",
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_LEAVING_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"JAX cannot start the processes: {' '.join(str(error).split())}; give "
            "--coordinator, --processes and --process-id"
        ) from error
    return names()


def _split(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    return host.strip("[]"), int(port)


def _check_free(coordinator: str) -> None:
    """Check that process 0 can open its port."""
    _, port = _split(coordinator)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ConfigError(
                f"--coordinator {coordinator}: process 0 cannot open port {port} "
                f"({error.strerror}); another process 0 may be running, or choose "
                "another port"
            ) from error


def _await(coordinator: str, timeout: int) -> None:
    """Wait until the coordinator answers."""
    host, port = _split(coordinator)
    end, reason = time.monotonic() + timeout, "no answer"
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection((host, port), timeout=min(left, 10)).close()
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(0.2, left))
        else:
            return
    raise ConfigError(
        f"coordinator {coordinator} does not answer after {timeout} s ({reason}); "
        "start process 0 there, and look at the address and the firewall"
    )


@functools.cache
def names() -> list[str]:
    """Return the host of each process, in order; all must call it together."""
    return gather(socket.gethostname())


def count() -> int:
    """Count the processes of this run."""
    return jax.process_count()


def leader() -> bool:
    """Tell whether this is process 0, which decides and writes."""
    return jax.process_index() == 0


def gather_bytes(data: bytes) -> list[bytes]:
    """Return what every process has given, in order; all must call it together."""
    if count() == 1:
        return [data]
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    # A power of two: the same small program serves many lengths.
    room = np.zeros(1 << int(max(sizes)).bit_length(), np.uint8)
    room[: len(data)] = np.frombuffer(data, np.uint8)
    rows = multihost_utils.process_allgather(room)
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def gather(text: str) -> list[str]:
    """Return what every process has said, in order; all must call it together."""
    return [said.decode() for said in gather_bytes(text.encode())]


def first(work: Callable[[], T]) -> T:
    """Do ``work`` on process 0 alone; return its result, plain JSON, on all.

    Raises:
        AlexNetError: what ``work`` raised, on all.
    """
    if count() == 1:
        return work()
    told, failure = "", None
    if leader():
        try:
            told = json.dumps({"value": work()})
        except Exception as error:
            failure = error
            told = json.dumps({"error": _kind(error), "text": str(error)})
    answer = json.loads(gather(told)[0])
    if failure is not None:
        raise _everywhere(failure)
    if "error" in answer:
        raise _everywhere(getattr(errors, answer["error"])(answer["text"]))
    return answer["value"]


def together(work: Callable[[], T]) -> T:
    """Do ``work`` on every process; where one fails, all do.

    ``work`` must not itself wait for the other processes.

    Raises:
        AlexNetError: what ``work`` raised here, or what it raised elsewhere, with the
            number of the process.
    """
    if count() == 1:
        return work()
    value, failure = None, None
    try:
        value = work()
    except Exception as error:
        failure = error
    said = "" if failure is None else json.dumps([_kind(failure), str(failure)])
    told = gather(said)
    if failure is not None:
        raise _everywhere(failure)
    for process, said in enumerate(told):
        if said:
            kind, text = json.loads(said)
            raise _everywhere(getattr(errors, kind)(f"process {process}: {text}"))
    return cast(T, value)


def _kind(error: Exception) -> str:
    return type(error if isinstance(error, AlexNetError) else AlexNetError()).__name__


def _everywhere(error: Exception) -> Exception:
    if isinstance(error, AlexNetError):
        error.everywhere = True
    return error


def check_same(facts: Mapping[str, Any]) -> None:
    """Refuse processes that were not started alike.

    Args:
        facts: names and plain values that must be those of process 0.

    Raises:
        ConfigError: names the first process and value that differ, on all.
    """
    told = [json.loads(said) for said in gather(json.dumps(facts, default=str))]
    for process, other in enumerate(told):
        for name in sorted(told[0].keys() | other.keys()):
            mine, theirs = told[0].get(name), other.get(name)
            if mine != theirs:
                raise _everywhere(
                    ConfigError(
                        f"process {process} was started with {name} {theirs}, "
                        f"process 0 with {mine}; start all processes alike"
                    )
                )


def stopping() -> Callable[[], bool]:
    """Return the question whether to stop, to be asked once a step on every process.

    A process that receives SIGTERM tells the others through JAX's coordinator; all
    hear yes at the same step.
    """
    steps = itertools.count()
    return lambda: multihost_utils.reached_preemption_sync_point(next(steps))


def whole(array: jax.Array) -> np.ndarray:
    """Return an array of which other processes may hold parts; all must call it."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
