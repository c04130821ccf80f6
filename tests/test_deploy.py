"""The job files: whole, and with options that there are."""

import re
import subprocess
from pathlib import Path

import pytest
import typer.main

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def options():
    from alexnet_cli.main import app

    verbs = typer.main.get_command(app)
    train = verbs.get_command(None, "train")  # type: ignore[attr-defined]
    return {flag for parameter in train.params for flag in parameter.opts}


@pytest.mark.parametrize("name", ["slurm.sh", "kubernetes.yaml"])
def test_every_option_of_a_job_file_is_one_of_train(name):
    lines = (DEPLOY / name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    text = text.partition("alexnet train ")[2]
    given = set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", text))
    assert "--resume" in given
    assert given <= options()


def test_the_slurm_file_is_a_shell_script():
    subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], check=True)


def test_the_kubernetes_job_has_a_process_a_pod():
    text = (DEPLOY / "kubernetes.yaml").read_text()
    (pods,) = re.findall(r"^  completions: (\d+)$", text, re.M)
    assert re.findall(r"--processes (\d+)$", text, re.M) == [pods]
    assert re.findall(r"^  parallelism: (\d+)$", text, re.M) == [pods]
    (port,) = re.findall(r"containerPort: (\d+)", text)
    assert f"--coordinator alexnet-0.alexnet:{port}" in text
