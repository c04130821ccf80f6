"""One of several processes: a small parent watches the worker that computes.

JAX's runtime ends a process whose peers have died in a native abort, with a stack for
its own developers. So the command starts itself once more: the worker computes and
prints, what the native libraries print goes to a file, and the parent, which loads no
jax, says in one line what a native end was about. The two hold each other by pipes:
the worker ends when its parent is gone.
"""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

import typer

from alexnet_cli import options, runtime, view

_WORKER = "ALEXNET_WORKER"  # the worker's file descriptors, given by its parent

# What a launcher sets, as JAX reads it: all of these, and more than one process.
_LAUNCHERS = {
    "SLURM": (
        "SLURM_NTASKS",
        ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"),
    ),
    "Open MPI": (
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK"),
    ),
}


def launcher() -> str | None:
    """Return the launcher that has started this process as one of several."""
    for name, (processes, others) in _LAUNCHERS.items():
        if all(variable in os.environ for variable in (processes, *others)):
            return name if int(os.environ[processes]) > 1 else None
    # How many pods an indexed job has, its controller alone knows; JAX asks it by
    # this package, and without it takes a pod for a machine of its own.
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    if indexed and importlib.util.find_spec("kubernetes"):
        return "Kubernetes"
    return None


def is_worker() -> bool:
    """Tell whether a parent watches this process."""
    return _WORKER in os.environ


def enter(
    coordinator: str | None, processes: int | None, process_id: int | None, wait: int
) -> None:
    """Become one of several processes, if flags or a launcher say so.

    In the worker it returns once all have come, and only the first prints from there
    on. The parent ends here, with the worker's exit code.
    """
    if launcher() is None and coordinator is processes is process_id is None:
        return
    if not is_worker():
        raise typer.Exit(start(process_id))
    runtime.set_up()
    from alexnet_jax import hosts

    if process_id == 0:
        view.note(f"waiting for {processes} processes at {coordinator}")
    names = hosts.join(coordinator, processes, process_id, timeout=wait)
    tell(hosts=names)
    if not hosts.leader():
        view.only_errors()


def start(process_id: int | None) -> int:
    """Start the worker, watch it to its end, and say what a native end was about.

    Args:
        process_id: which process this is; None where the launcher knows it.

    Returns:
        The exit code.
    """
    among = "this process" if process_id is None else f"this process, {process_id},"
    alive, held = os.pipe()  # nothing is ever written: it closes when the parent ends
    notes, told = os.pipe()
    descriptors = [os.dup(1), os.dup(2), alive, told]
    with tempfile.TemporaryFile() as native:
        worker = subprocess.Popen(
            [sys.executable, "-m", "alexnet_cli", *runtime.arguments],
            env={**os.environ, _WORKER: ",".join(map(str, descriptors))},
            stdin=subprocess.DEVNULL,
            stdout=native,
            stderr=native,
            pass_fds=descriptors,
            process_group=0,  # Ctrl-C comes to the parent alone, which passes it on
        )
        for descriptor in descriptors:
            os.close(descriptor)
        with _passing_on(worker) as caught:
            code = worker.wait()
        os.close(held)
        with os.fdopen(notes) as file:
            known = _merge(file)
        native.seek(0)
        printed = native.read().decode(errors="replace")
    if options.debugging():
        sys.stderr.write(printed)
    if code == -signal.SIGTERM and caught:
        return 128 + caught[0]  # before it could be asked to stop after a step
    if code < 0:
        view.error(_explain(-code, printed, known, among))
        return 1
    if caught and code in (130, 143):
        return 128 + caught[0]
    return code


@contextlib.contextmanager
def _passing_on(worker: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Turn signals into the one that JAX passes on to the other processes."""
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if caught.count(signal.SIGINT) > 1:
            worker.kill()
        caught.append(number)
        worker.send_signal(signal.SIGTERM)
        what = "all processes finish the step, then save"
        if len(caught) > 1:
            what = "saving; Ctrl-C once more quits without"
        os.write(2, f"{signal.Signals(number).name}: {what}\n".encode())

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _merge(lines: Iterable[str]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):  # it died while writing
            known |= json.loads(line)
    return known


def _explain(number: int, printed: str, known: Mapping[str, Any], among: str) -> str:
    """Say in one line why the worker ended by a signal."""
    hosts: Sequence[str] = known.get("hosts", ())

    def named(process: str) -> str:
        there = int(process) < len(hosts)
        return f"process {process}" + (f" on {hosts[int(process)]}" if there else "")

    def several(found: str) -> str:
        return ", ".join(map(named, re.findall(r"\d+", found)))

    go_on = "nothing was saved yet"
    if "run_dir" in known:
        go_on = (
            "start all processes again with --resume --run-dir "
            f"{view.short(known['run_dir'])}"
        )
    if found := re.search(
        r"unhealthy \(stopped sending heartbeats\):\s*([\d,\s]+)", printed
    ):
        dead = several(found[1])
        return f"{dead} died or cannot be reached any more; {go_on}"
    if found := re.search(
        r"(\d+) unexpectedly tried to connect with a different", printed
    ):
        return (
            f"two processes call themselves process {found[1]}, or it has been started "
            f"again; give each its own --process-id and start all together; {go_on}"
        )
    if found := re.search(r"Unexpected task registered with task=(\d+)", printed):
        return (
            f"process 0 was started for fewer processes than to have a process "
            f"{found[1]}; give all the same --processes"
        )
    if "RegisterTask" in printed and "DEADLINE_EXCEEDED" in printed:
        return (
            f"not all processes came within the time-out ({among} did), or another has "
            "its --process-id; start all, each with its own and the same --processes"
        )
    if "Failed to send RPC to coordination service" in printed:
        return f"{named('0')}, the coordinator, died or cannot be reached; {go_on}"
    if number == signal.SIGKILL:
        return f"{among} was killed (SIGKILL), perhaps for want of memory; {go_on}"
    lines = re.sub(r"(?m)^[IWEF]\d{4} .*?\] ", "", printed).splitlines()
    last = [line for line in lines if not line.startswith(("    @", "***"))]
    return (
        f"{among} was ended by {signal.Signals(number).name}; {go_on} "
        f"({' '.join(last[-1:])[:200] or 'it said nothing'}; --debug shows all)"
    )


def become_worker() -> None:
    """Print to the parent's terminal, and end when the parent does."""
    out, err, alive, told = map(int, os.environ[_WORKER].split(","))
    sys.stdout = os.fdopen(out, "w")
    sys.stderr = os.fdopen(err, "w", buffering=1)
    for descriptor in (out, err, alive, told):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


def tell(**facts: Any) -> None:
    """Tell the parent, if there is one, what helps it explain a native end."""
    if not is_worker():
        return
    *_, told = map(int, os.environ[_WORKER].split(","))
    os.write(told, (json.dumps(facts, default=str) + "\n").encode())


def await_the_cause(error: BaseException) -> None:
    """Where a message to other processes failed, wait for the runtime to say which.

    A broken connection shows at once, and only here; a little later the runtime knows
    by the missing heartbeats who died, and ends this process natively.
    """
    from alexnet_jax.hosts import HEARTBEAT_SECONDS

    cause, seen = error, set[int]()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))  # an error that is raised again is its own cause
        if type(cause).__name__ == "JaxRuntimeError":
            if "RESOURCE_EXHAUSTED" not in str(cause):
                time.sleep(HEARTBEAT_SECONDS + 15)
            return
        cause = cause.__cause__ or cause.__context__


def leave_at_once(code: int) -> NoReturn:
    """End the process without waiting for the others, who do not know yet."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
