"""The accelerator benchmark: all of it in small, without TensorFlow; what fails or has no time does not stop the rest."""

import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import accelerator
from benchmarks.accelerator import Options, Part, Task
from gensupcon_jax.data import datasets
from gensupcon_jax.errors import UserError
from tests import REFERENCE
from tests.test_slices import without_tensorflow


def options(folder):
    return Options(sizes=accelerator.TINY, output=folder, arrays="", epochs=2.0)


def lines(folder):
    return [json.loads(text) for text in (folder / "lines.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_all_of_it_in_small_without_tensorflow(tmp_path):
    command = ("-m", "benchmarks.accelerator", "--tiny", "--minutes", "60", "--output", str(tmp_path))
    status, stdout, said = without_tensorflow(*command)
    assert status == 0, stdout + said
    found = accelerator.read_lines(tmp_path)
    assert {part for part, _ in found} == set(accelerator.PARTS)
    assert [line for line in found.values() if "failed" in line or "not begun" in line] == []
    assert {part for (part, _), line in found.items() if "not measured" in line} <= {"torch", "embed"}
    assert found["embed", "resnet_small, JPEG files of 500 x 375"]["not measured"].startswith(
        "not installed: tensorflow"
    )
    checks = {what: line["passed"] for (part, what), line in found.items() if "passed" in line}
    assert len(checks) == 7 and all(checks.values())
    factored, dense = ("factored, 128 x 10 x 8, tile 32", "dense, 128 x 10 x 8, compiled only")
    assert found["loss", factored]["peak MiB"] < found["loss", dense]["peak MiB"]
    assert found["step", "digits, batch 16, queue 32"]["images/s"] > 0
    for method in ("cross-entropy, mixed", "GenSCL, teacher"):
        run = found["evidence", f"{method}, seed 0"]
        assert (run["epochs"], run["num_train"], run["num_test"]) == (2.0, 64, 540)
        assert 0 < run["linear_top1"] <= 100
    assert "| GenSCL, teacher, seed 0 |" in (tmp_path / "table.md").read_text()


def test_a_task_that_fails_does_not_stop_those_after_it(tmp_path, monkeypatch, capsys):
    def silent():
        raise AssertionError

    def tasks(options):
        yield Task("first", lambda: {"seconds": 0.5})
        yield Task("broken", lambda: 1 / 0)
        yield Task("silent", silent)
        yield Task("last", lambda: accelerator.verdict(1e-6, 1e-5))

    monkeypatch.setitem(accelerator.PARTS, "card", Part(1.0, tasks))
    assert accelerator.run_part("card", options(tmp_path), time.time() + 60) is False
    found = lines(tmp_path)
    assert [line["what"] for line in found] == ["first", "broken", "silent", "last"]
    assert found[1]["failed"] == "ZeroDivisionError: division by zero"
    assert found[2]["failed"] == "AssertionError: "
    assert "last: difference 1e-06, allowed 1e-05, passed yes" in capsys.readouterr().out


def test_a_task_is_not_begun_where_the_longest_would_not_fit(tmp_path, monkeypatch):
    def tasks(options):
        yield Task("long", lambda: time.sleep(0.2) or {})
        yield Task("another", lambda: pytest.fail("there is no time for it"))

    monkeypatch.setitem(accelerator.PARTS, "card", Part(1.0, tasks))
    assert accelerator.run_part("card", options(tmp_path), time.time() + 0.3) is True
    assert lines(tmp_path)[1]["not begun"] == "0 s left, 0 needed"


@pytest.mark.parametrize(
    ("difference", "passed"), [(9e-6, True), (2e-5, False), (float("nan"), False)], ids=["small", "large", "nan"]
)
def test_a_check_that_is_not_passed_fails_its_part(tmp_path, monkeypatch, difference, passed):
    tasks = [Task("check", lambda: accelerator.verdict(difference, 1e-5))]
    monkeypatch.setitem(accelerator.PARTS, "card", Part(1.0, lambda options: iter(tasks)))
    assert accelerator.run_part("card", options(tmp_path), time.time() + 60) is passed
    assert lines(tmp_path)[0]["passed"] is passed


def test_a_part_that_takes_too_long_is_killed(tmp_path):
    assert not accelerator.start_part("card", accelerator.words_of(options(tmp_path)), tmp_path, 0.2)
    assert lines(tmp_path) == [{"part": "card", "what": "the part", "failed": "killed after 0 s"}]


def test_the_end_of_a_process_that_says_nothing_is_a_line(tmp_path, capsys):
    assert not accelerator.start_part("card", ["--no-such-argument"], tmp_path, 60.0)
    assert lines(tmp_path)[0]["failed"].startswith("status 2: accelerator.py: error: unrecognized arguments")


def test_seconds_that_a_part_leaves_go_to_those_after_it(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(accelerator.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(accelerator, "PARTS", {"a": Part(0.5, None), "b": Part(0.25, None), "c": Part(0.25, None)})
    given = {}
    for name, seconds in accelerator.limits(["a", "b", "c"], 80.0):
        given[name] = seconds
        now[0] += 10.0
    assert given == {"a": 40.0, "b": 35.0, "c": 60.0}


def test_the_table_has_the_newest_line_of_each_measurement(tmp_path, capsys):
    for seconds, rate in ((2.0, 64), (0.001234567, 12345)):
        accelerator.append(tmp_path, {"part": "step", "what": "one", "at": "now", "seconds": seconds, "images/s": rate})
    accelerator.append(tmp_path, {"part": "step", "what": "two", "at": "now", "failed": "a | b"})
    accelerator.append(tmp_path, {"part": "card", "what": "machine", "at": "now", "device": "H"})
    assert accelerator.table(accelerator.read_lines(tmp_path)).splitlines()[:7] == [
        "- device: H",
        "",
        "## step",
        "",
        "| | seconds | images/s | failed |",
        "|---|---|---|---|",
        "| one | 0.001235 | 12,345 |  |",
    ]


def test_shares_of_the_ceiling_are_of_what_the_card_reached(tmp_path, capsys):
    assert accelerator.speed(tmp_path, 2e12, 0.5) == {"TFLOP/s": 4.0}
    accelerator.append(tmp_path, {"part": "card", "what": "matrix product, bfloat16", "TFLOP/s": 16.0})
    assert accelerator.speed(tmp_path, 2e12, 0.5) == {"TFLOP/s": 4.0, "% of ceiling": 25.0}


def test_a_wrong_loss_is_not_the_authors():
    with np.load(REFERENCE / "authors_loss.npz") as file:
        golden = dict(file) | {"num_cases": 1}
    assert accelerator.golden_difference(golden, "dense", of_gradients=False)["passed"]
    golden["case0_loss"] = golden["case0_loss"] * 1.0001
    assert not accelerator.golden_difference(golden, "dense", of_gradients=False)["passed"]
    golden["case0_key_grad"] = golden["case0_key_grad"] + 1e-3
    assert not accelerator.golden_difference(golden, "dense", of_gradients=True)["passed"]


def test_a_head_in_half_precision_is_not_the_head(monkeypatch):
    from gensupcon_jax.models import heads

    assert accelerator.head_difference(8, 16)["passed"]
    linear = heads.linear

    def rounded(features, inputs, *, name):
        return linear(features, inputs.astype(jnp.bfloat16).astype(jnp.float32), name=name)

    monkeypatch.setattr(heads, "linear", rounded)
    assert not accelerator.head_difference(8, 16)["passed"]


def test_arguments_reach_the_parts(tmp_path):
    parser = accelerator.build_parser()
    given = parser.parse_args(
        ["--tiny", "--output", str(tmp_path), "--epochs", "3", "--arrays", str(tmp_path / "a.npz")]
    )
    of_part = accelerator.options_of(parser.parse_args(accelerator.words_of(accelerator.options_of(given))))
    assert of_part == Options(accelerator.TINY, tmp_path, str(tmp_path / "a.npz"), 3.0)


def test_every_method_of_the_evidence_is_a_config_that_can_be(tmp_path):
    from gensupcon_jax.run.config_check import check_config

    full = Options(accelerator.FULL, tmp_path, "images.npz", 100.0)
    for method, (_, _, teacher) in accelerator.METHODS.items():
        config = accelerator.evidence_config(full, method, seed=1)
        check_config(config)
        assert (config.dataset.name, config.epochs, config.seed) == ("arrays:images.npz", 100.0, 1)
        assert (config.teacher.kind == "workdir") is (teacher is not None)


def test_every_recipe_of_the_steps_is_a_config_that_can_be():
    import importlib

    from gensupcon_jax.plan.known import data_sizes
    from gensupcon_jax.plan.step import check_planned, with_fields

    for recipe, variant, fields in accelerator.FULL.steps:
        config = with_fields(importlib.import_module(f"configs.{recipe}").get_config(variant), fields)
        check_planned(config, data_sizes(config.dataset.name), num_devices=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arrays", "nothing.npz"], "--arrays is nothing.npz, which is not a file"),
        (["--write-arrays", "images"], "--write-arrays is images; allowed: a name that ends in .npz"),
        (["--write-arrays", "images.npz", "--folder", "nowhere"], "tfds:fashion_mnist"),
    ],
)
def test_wrong_paths_are_one_line_before_anything_is_measured(tmp_path, monkeypatch, arguments, said):
    def unprepared(name, **_):
        raise UserError(f"{name} is not prepared")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load", unprepared)
    monkeypatch.setattr("sys.argv", ["accelerator", *arguments])
    with pytest.raises(SystemExit, match=f"^error: {said}"):
        accelerator.main()
    assert list(tmp_path.iterdir()) == []
