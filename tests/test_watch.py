"""One line for each way in which the runtime ends a worker; what a launcher sets."""

import signal

import pytest

from alexnet_cli import watch

KNOWN = {"hosts": ["node7", "node8"], "run_dir": "/shared/runs/imagenet-1"}
GO_ON = "start all processes again with --resume --run-dir /shared/runs/imagenet-1"
FATAL = "F1125 02:23:28.583589   14567 client.h:80] Terminating process because "


# As jaxlib 0.10.2 prints them, shortened.
@pytest.mark.parametrize(
    ("printed", "known", "line"),
    [
        (
            "UNAVAILABLE: The following tasks are unhealthy (stopped sending "
            "heartbeats):\n1\nThe tasks have crashed. Check the task logs",
            KNOWN,
            f"process 1 on node8 died or cannot be reached any more; {GO_ON}",
        ),
        (
            "The following tasks are unhealthy (stopped sending heartbeats):\n0,1\nThe",
            {},
            "process 0, process 1 died or cannot be reached any more; nothing was "
            "saved yet",
        ),
        (
            "UNAVAILABLE: Failed to send RPC to coordination service. Either",
            KNOWN,
            "process 0 on node7, the coordinator, died or cannot be reached; " + GO_ON,
        ),
        (
            "ABORTED: 1 unexpectedly tried to connect with a different incarnation.",
            {},
            "two processes call themselves process 1, or it has been started again; "
            "give each its own --process-id and start all together; nothing was saved "
            "yet",
        ),
        (
            "INVALID_ARGUMENT: Unexpected task registered with task=2\n\nRPC: x",
            {},
            "process 0 was started for fewer processes than to have a process 2; give "
            "all the same --processes",
        ),
        (
            "DEADLINE_EXCEEDED: Deadline Exceeded\n\nRPC: /xla.coordination."
            "CoordinationService/RegisterTask",
            {},
            "not all processes came within the time-out (this process, 1, did), or "
            "another has its --process-id; start all, each with its own and the same "
            "--processes",
        ),
        (
            "something new\n    @   0x7f  absl::Log()",
            {},
            "this process, 1, was ended by SIGABRT; nothing was saved yet (Terminating "
            "process because something new; --debug shows all)",
        ),
    ],
)
def test_a_native_end_in_one_line(printed, known, line):
    said = watch._explain(signal.SIGABRT, FATAL + printed, known, "this process, 1,")
    assert said == line


def test_a_killed_worker():
    assert watch._explain(signal.SIGKILL, "", KNOWN, "this process") == (
        f"this process was killed (SIGKILL), perhaps for want of memory; {GO_ON}"
    )


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[7-8]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        (SLURM, "SLURM"),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),
        # A batch script of several tasks is none of them before srun.
        ({k: v for k, v in SLURM.items() if "STEP" not in k}, None),
        (
            {
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_RANK": "0",
                "OMPI_MCA_orte_hnp_uri": "1;tcp://10.0.0.1:1",
            },
            "Open MPI",
        ),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"},
         "Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)  # fmt: skip
def test_which_launcher(variables, found, monkeypatch):
    for name in ("SLURM", "OMPI", "KUBERNETES", "JOB"):
        for variable in [v for v in watch.os.environ if v.startswith(name)]:
            monkeypatch.delenv(variable)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(watch.importlib.util, "find_spec", lambda name: name)
    assert watch.launcher() == found
    monkeypatch.setattr(watch.importlib.util, "find_spec", lambda name: None)
    assert watch.launcher() == (None if found == "Kubernetes" else found)
