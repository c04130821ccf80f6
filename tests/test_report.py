"""The report: its numbers against independent ones, and what the page says of them."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet_cli.main import main
from alexnet_jax import (
    checkpoint,
    data,
    evaluate,
    machine,
    predict,
    recipes,
    report,
    rundir,
)
from alexnet_jax.checkpoint import Loaded
from alexnet_jax.data.splits import evenly
from alexnet_jax.errors import CheckpointError, ConfigError, DataError
from alexnet_jax.figures import chroma
from alexnet_jax.mesh import make_mesh
from alexnet_jax.networks import network
from alexnet_jax.report import answers, charts, page, pictures, words
from alexnet_jax.report.gather import Gathered

MESH = make_mesh(network("digits"), devices=1)


@pytest.fixture(scope="module")
def loaded(digits_run: Path) -> Loaded:
    return checkpoint.load(digits_run, MESH)


@pytest.fixture(scope="module")
def gathered(digits_run: Path) -> Gathered:
    return report.gather(digits_run, MESH)


def test_the_numbers_are_those_of_evaluation_and_of_prediction(
    gathered: Gathered, loaded: Loaded
):
    source, _ = data.open_split("digits", "test")
    *_, tested = evaluate.evaluate(loaded, source, MESH)
    found = gathered.answers
    assert found is not None
    assert found.available == found.result.images == 360
    assert found.result.top1_error == tested.top1_error
    assert found.result.log_prob == pytest.approx(tested.log_prob, abs=1e-6)
    assert gathered.result == found.result
    shown = [source[index].image for index in range(360)]
    truth = np.array([source[index].label for index in range(360)])
    guesses = [answer.guesses[0] for answer in predict.predict(loaded, shown, MESH)]
    counts = np.zeros((10, 10), int)
    for label, guess in zip(truth, guesses, strict=True):
        counts[label, guess.index] += 1
    np.testing.assert_array_equal(found.counts, counts)
    sure = sorted(
        (
            guess.probability
            for label, guess in zip(truth, guesses, strict=True)
            if guess.index != label
        ),
        reverse=True,
    )
    assert len(sure) > 12  # else the next line says nothing about the order
    assert [shown.guesses[0][1] for shown in found.mistakes] == pytest.approx(
        sure[:12], abs=1e-5
    )
    assert not any(shown.right for shown in found.mistakes)
    first = found.pairs[0]
    assert first.count == (counts - np.diag(np.diag(counts))).max()
    assert first.share == first.count / counts[int(first.truth)].sum()


def test_a_large_split_is_looked_at_evenly_and_the_page_says_so(loaded: Loaded):
    source, _ = data.open_split("digits", "test")
    some = evenly(source, 40)
    assert [some[place].id for place in (0, 1, 39)] == [
        source[place].id for place in (0, 9, 351)
    ]
    assert evenly(source, 360) is source
    found = answers.answer(
        *(loaded, source, MESH),
        limit=40,
        batch_size=40,
        pairs=3,
        mistakes=2,
        samples=4,
    )
    assert (found.available, found.result.images, found.counts.sum()) == (360, 40, 40)
    assert [shown.image for shown in found.samples] == [
        source[place].id for place in (0, 90, 180, 270)
    ]


def test_what_a_recipe_says_beside_its_values():
    found = recipes.sources(
        "# About it,\n# in two lines.\n"
        'network = "a # b"  # the table\n'
        "# for fun\n[run]\n# above\nseed = 1  # beside\nkeep = 3\n"
        "\n# of nothing\n\n[run.deep]\nx = [1, 2]  # last\n"
    )
    assert found.about == "About it, in two lines."
    assert found.keys == {
        "network": "the table",
        "run.seed": "above beside",
        "run.deep.x": "last",
    }
    assert found.sections == {"run": "for fun"}


def test_what_was_published_stands_in_the_recipe_and_decides_nothing(tmp_path: Path):
    known = {name: recipes.published(name) for name in recipes.names()}
    errors = {name: found.top1_error for name, found in known.items() if found}
    assert errors == {
        "cifar10-quick": 0.26,
        "cifar-18pct": 0.18,
        "cifar-conv-local-13pct": 0.13,
        "cifar-conv-local-11pct": 0.11,
        "imagenet": 0.407,
        "imagenet-plateau": 0.407,
    }
    assert "published" not in recipes.dump(recipes.load("imagenet"))
    file = tmp_path / "mine.toml"
    file.write_text(recipes.text("digits") + "\n[published]\ntop1_error = 1.5\n")
    with pytest.raises(ConfigError) as caught:
        recipes.load(str(file))
    assert str(caught.value) == (
        "published.top1_error 1.5: Input should be less than or equal to 1"
    )


def test_a_run_records_its_machine_and_its_time(digits_run: Path):
    began, ended = rundir.read_sessions(digits_run)
    assert (began["event"], ended["event"]) == ("began", "ended")
    assert (began["step"], ended["step"]) == (0, 60)
    assert began["versions"] == machine.facts()["versions"]
    assert "1 x data" in began["mesh"]
    assert ended["seconds"] > 0


def test_values_that_a_run_changed_are_marked(gathered: Gathered):
    changed = {
        f"{section.name}.{value.key}": (value.value, value.shipped)
        for section in words.sections(gathered)
        for value in section.values
        if value.shipped is not None
    }
    assert changed.pop("run.save_every")[1] == "10.0"
    assert changed == {"run.steps": ("60", "none")}
    html = page.render([gathered])
    assert "<mark>60</mark>" in html
    assert "twice the weights&#39;, as in net 145" in html  # a source
    assert "to step 60 of 2,694" in html


def test_the_published_number_stands_beside_the_result(gathered: Gathered):
    published = recipes.Published(top1_error=0.26, views=10, source="a cfg")
    run = dataclasses.replace(gathered, published=published)
    html = page.render([run])
    assert "26%" in html
    assert "a cfg" in html
    told = " ".join(words.remarks(run))
    assert "published number is for ten views averaged" in told
    assert "--views 10" in told
    other = recipes.load("digits", {"schedule.epochs": 9})
    told = " ".join(words.remarks(dataclasses.replace(run, recipe=other)))
    assert "differs in schedule.epochs." in told
    assert "published" not in " ".join(words.remarks(gathered))


def test_runs_side_by_side_say_what_differs(gathered: Gathered):
    other = recipes.load("digits", {"optimizer.learning_rate": 0.5})
    second = dataclasses.replace(gathered, path=Path("a/<b>"), recipe=other)
    rows = dict(words.differing([gathered, second]))
    assert rows["optimizer.learning_rate"] == ["0.01", "0.5"]
    assert rows["run.steps"] == ["60", words.NOTHING]
    html = page.render([gathered, second])
    assert "<b></h1>" not in html
    assert "&lt;b&gt;" in html
    twice = words.named([gathered, gathered])
    assert twice == [str(gathered.path)] * 2


def test_the_page_is_small_and_refers_to_nothing_outside(gathered: Gathered):
    html = page.render([gathered])
    assert len(html.encode()) < 3e6
    scripts = re.compile(r"<script.*?</script>|<style.*?</style>", re.S)
    refers = re.findall(r"(?:src|href)=\"([^\"]*)\"", scripts.sub("", html))
    assert refers
    outside = [to for to in refers if not to.startswith(("#", "data:"))]
    assert not outside
    anchors = {to[1:] for to in refers if to.startswith("#")}
    assert anchors <= set(re.findall(r" id=\"([^\"]*)\"", html))


def test_a_run_whose_pictures_are_gone_is_told_without_them(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def gone(*_: object, **__: object) -> None:
        raise DataError("the folder <x> is gone; give --data-dir")

    monkeypatch.setattr(data, "open_split", gone)
    run = report.gather(digits_run, MESH)
    assert (run.answers, run.layers) == (None, [])
    assert run.result is not None
    assert run.result.images == 360  # as the checkpoint has it
    html = report.write([run], tmp_path / "page.html").read_text()
    assert "the folder &lt;x&gt; is gone" in html
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_what_cannot_be_a_page_or_a_run(tmp_path: Path):
    with pytest.raises(ConfigError, match="let the name end in"):
        report.check_page(tmp_path / "page.pdf")
    with pytest.raises(ConfigError, match="does not exist; make it first"):
        report.check_page(tmp_path / "no" / "page.html")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        report.gather(tmp_path, MESH)


def test_curves_are_thinned_to_the_means_of_neighbours():
    rows = [
        {"epoch": step / 10, "step": step, "loss": step, "top1_error": step / 100}
        for step in (1, 2, 3, 4, 5)
    ]
    assert charts.thinned(rows, 2) == [
        {"epoch": 0.3, "step": 3, "loss": 2, "top1_error": 0.02},
        {"epoch": 0.5, "step": 5, "loss": 4.5, "top1_error": 0.045},
    ]
    assert charts.thinned([], 2) == []


def test_filters_of_colour_get_a_chart(gathered: Gathered):
    kernel = np.random.default_rng(0).normal(size=(5, 5, 3, 8)).astype(np.float32)
    run = dataclasses.replace(gathered, kernel=kernel, chroma=chroma(kernel, 2))
    html = page.render([run])
    assert 'data-chart="chart-colours-0"' in html
    assert "of their energy in colour" in html
    assert 'data-chart="chart-colours-0"' not in page.render([gathered])


def test_time_is_counted_from_the_rates_of_the_rows(gathered: Gathered):
    batch = gathered.recipe.optimizer.batch_size
    rows = [
        {"split": "train", "step": 10, "loss": 1.0, "images_per_second": 10.0 * batch},
        {"split": "train", "step": 10, "update_ratios": {}},
        {"split": "train", "step": 40, "loss": 1.0, "images_per_second": 5.0 * batch},
    ]
    run = dataclasses.replace(gathered, rows=rows, sessions=[])
    assert words.step_seconds(run) == pytest.approx(1 + 6)
    assert (words.elapsed(run), words.counted(run)) == ("7 s", "its steps alone")
    # Of a session that was killed nobody knows how long it took.
    began, ended = {"event": "began"}, {"event": "ended", "seconds": 2.0}
    killed = dataclasses.replace(run, sessions=[began, began, ended])
    assert (words.elapsed(killed), words.counted(killed)) == ("7 s", "its steps alone")
    whole = dataclasses.replace(run, sessions=[began, ended, began, ended])
    assert (words.elapsed(whole), words.counted(whole)) == ("4 s", "from start to end")


def test_which_checkpoint_a_page_is_about(gathered: Gathered):
    """The best of a run that went to its end is not its end."""
    meta = gathered.meta

    def said(run: Gathered) -> tuple[str, bool]:
        standing = dict(words.facts(run))["checkpoint"].partition("epoch")[2]
        cut = any("not run to its end" in remark for remark in words.remarks(run))
        return standing.partition(", ")[2], cut

    assert said(gathered) == ("the last", True)
    end = dataclasses.replace(meta, step=meta.total_steps)
    best = dataclasses.replace(gathered, last=end, best=True)
    assert said(best) == ("the best by its validation error", False)
    assert said(dataclasses.replace(best, best=False)) == ("", False)
    stopped = dataclasses.replace(meta, plateau={"ended": True})
    assert said(dataclasses.replace(gathered, last=stopped)) == ("the last", False)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0083333, "0.83%"), (0.26534, "26.5%"), (1.0, "100.0%"), (1e-6, "< 0.01%")],
)
def test_shares_in_words(share: float, said: str):
    assert words.percent(share) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(26.4, "26 s"), (100.0, "1 min 40 s"), (7260.0, "2 h 1 min")],
)
def test_durations_in_words(seconds: float, said: str):
    assert words.duration(seconds) == said


def test_patches_lie_a_clear_pixel_apart():
    black = np.zeros((2, 3, 1), np.uint8)
    sheet = pictures.grid([black, black + 7], 3)
    assert sheet.shape == (2, 7, 4)
    np.testing.assert_array_equal(sheet[0, :, 3], [255, 255, 255, 0, 255, 255, 255])
    np.testing.assert_array_equal(sheet[0, 4], [7, 7, 7, 255])


def test_many_classes_have_no_table_of_all_pairs(gathered: Gathered):
    found = gathered.answers
    assert found is not None
    assert [truth for truth, _ in words.cells(found)] == list(map(str, range(10)))
    many = dataclasses.replace(found, classes=[f"class {n}" for n in range(21)])
    assert words.cells(many) == []


@pytest.fixture
def alexnet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in an empty folder on one device; return its end and its words."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ending:
            main([*map(str, words), "--devices", "1"])
        assert isinstance(ending.value.code, int)
        written = capsys.readouterr()
        return ending.value.code, written.out, written.err

    return run


def test_a_run_ends_with_its_report_and_can_be_reported_again(
    alexnet: Callable[..., tuple[int, str, str]], tmp_path: Path
):
    code, out, err = alexnet("train", "digits", "--steps", 4)
    assert code == 0, err
    page = tmp_path / "runs" / "digits-1" / "report.html"
    assert "report           runs/digits-1/report.html" in out
    first = page.read_text()
    assert "from start to end" in first
    code, out, err = alexnet("report", "runs/digits-1", "--out", "again.html")
    assert code == 0, err
    assert "report  again.html" in out
    assert "size    1." in out
    again = Path("again.html").read_text()
    charts = re.compile(r'"p\d+"|data-chart=.*')  # Bokeh counts on
    assert charts.sub("", again) == charts.sub("", first)
    code, out, err = alexnet("report", "runs/digits-7")
    assert code == 1
    assert "no checkpoint at runs/digits-7: it does not exist" in err
    code, out, err = alexnet("report", "runs/digits-1", "--out", "no/page.html")
    assert code == 1
    assert "the folder no does not exist; make it first" in err


@pytest.mark.parametrize(("cores", "said"), [(1, "CPU, 1 core"), (2, "CPU, 2 cores")])
def test_one_core_is_not_many(gathered, cores, said):
    began = next(line for line in gathered.sessions if line["event"] == "began")
    line = {**began, "processor": "CPU", "cores": cores, "devices": "1 x cpu"}
    run = dataclasses.replace(gathered, sessions=[line])
    assert words.devices(run) == said
    assert ("processor", said) in words.machine(run)
