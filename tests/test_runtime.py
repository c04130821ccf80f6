"""What happens before a verb computes."""

import os
import sys

import pytest

from alexnet_cli import main, runtime


class StartedAnew(Exception):
    """Raised in place of becoming another process."""


@pytest.fixture
def started(monkeypatch):
    def execv(path, arguments):
        raise StartedAnew(path, arguments)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "alexnet_cli", "train"])
    # Set first, so that what the code sets is undone.
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    return monkeypatch


def test_a_process_starts_anew_once_with_the_same_arguments(started):
    with pytest.raises(StartedAnew) as anew:
        runtime.ask_for_huge_pages()
    assert anew.value.args == (sys.executable, sys.orig_argv)
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    runtime.ask_for_huge_pages()  # no further


def test_other_wishes_stay(started):
    started.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    with pytest.raises(StartedAnew):
        runtime.ask_for_huge_pages()
    wanted = "glibc.malloc.check=3:glibc.malloc.hugetlb=1"
    assert os.environ["GLIBC_TUNABLES"] == wanted


@pytest.mark.parametrize("wish", ["0", "2"])
def test_who_has_chosen_keeps_the_choice(started, wish):
    started.setenv("GLIBC_TUNABLES", f"glibc.malloc.hugetlb={wish}")
    runtime.ask_for_huge_pages()


def test_other_systems_are_left_alone(started):
    started.setattr(sys, "platform", "darwin")
    runtime.ask_for_huge_pages()


def test_a_verb_that_computes_starts_anew(started):
    started.setattr(sys, "argv", ["alexnet", "train"])
    with pytest.raises(StartedAnew):
        main.main()


@pytest.mark.parametrize("argument", ["recipes", "--version"])
def test_what_computes_nothing_answers_at_once(started, argument):
    started.setattr(sys, "argv", ["alexnet", argument])
    with pytest.raises(SystemExit) as ending:
        main.main()
    assert ending.value.code == 0
