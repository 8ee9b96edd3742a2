"""The command `gensupcon compare`: a table and a page; each wrong argument is one line, and nothing is overwritten."""

import subprocess
import sys

import jax
import pytest

from gensupcon_jax.__main__ import main
from gensupcon_jax.run.train import train_and_evaluate
from tests import ROOT
from tests.compare.workdirs import make_run
from tests.tiny import tiny_config, tiny_dataset


@pytest.fixture
def runs(tmp_path):
    return [str(make_run(tmp_path / "a", linear=(1, 2))), str(make_run(tmp_path / "b", mix={"kind": "mixup"}))]


def printed(capsys, *arguments):
    main(["compare", *map(str, arguments)])
    return capsys.readouterr().out


def refusal(*arguments):
    with pytest.raises(SystemExit) as error:
        main(["compare", *map(str, arguments)])
    return error.value.code


def test_a_table_and_a_page(runs, tmp_path, capsys):
    output = tmp_path / "new" / "compare.html"
    text = printed(capsys, *runs, "--output", output)
    assert "mix.kind  none  mixup" in text
    assert "a is less accurate than b by 2.00 points" in text
    assert text.endswith(f"\ncomparison: {output}\n")
    assert f"gensupcon compare {runs[0]} {runs[1]} --output" in output.read_text()


@pytest.mark.slow
def test_runs_as_they_are_trained(tmp_path, capsys):
    results = {}
    for name, changes in (("a", {}), ("b", {"seed": 1, "loss.temperature": 0.5})):
        config = tiny_config(steps=0, **changes)  # evaluates the network as it was drawn
        results[name] = train_and_evaluate(config, tmp_path / name, tiny_dataset(), devices=jax.devices()[:1])
    text = printed(capsys, *(tmp_path / name for name in results), "--output", tmp_path / "compare.html")
    rows = [line.split() for line in text.splitlines()]
    for (name, numbers), seed in zip(results.items(), "01", strict=True):
        assert [name, seed, "0", "-", f"{numbers['linear_top1']:.2f}"] in [row[:5] for row in rows]
    assert f"Of {results['b']['num_test']} test images, a alone classifies " in text
    assert (tmp_path / "compare.html").stat().st_size > 10_000


def test_a_page_that_exists_is_kept(runs, tmp_path, capsys):
    output = tmp_path / "compare.html"
    output.write_text("mine")
    message = f"error: --output is {output}, which exists and is kept; choose another path, or add --overwrite"
    assert refusal(*runs, "--output", output) == message
    assert output.read_text() == "mine"
    printed(capsys, *runs, "--output", output, "--overwrite")
    assert "comparison of runs" in output.read_text()


def test_wrong_arguments_are_one_line(runs, tmp_path):
    assert refusal(*runs, "--output", tmp_path) == (
        f"error: --output is {tmp_path}, which is a folder; allowed: the path of an HTML file"
    )
    page = tmp_path / "c.html"
    assert refusal(runs[0], "--output", page) == f"error: only one run is given, {runs[0]}; allowed: 2 or more workdirs"
    assert (
        refusal(*runs, runs[0], "--output", page)
        == f"error: {runs[0]} is the same run as {runs[0]}; name each run once"
    )
    assert "is not the workdir of a run" in refusal(runs[0], tmp_path, "--output", page)
    assert refusal("--output", page).startswith("error: the following arguments are required: RUN")
    (tmp_path / "file").touch()
    assert "cannot be written (" in refusal(*runs, "--output", tmp_path / "file" / "c.html")
    assert not page.exists()


def test_jax_is_not_imported(runs, tmp_path):
    code = "import sys; from gensupcon_jax.__main__ import main; main(sys.argv[1:]); print('jax' in sys.modules)"
    command = [sys.executable, "-c", code, "compare", *runs, "--output", str(tmp_path / "c.html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
