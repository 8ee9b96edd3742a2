"""Weights of runs: where a run started from a file, its backbone is the file's."""

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.files import write_safetensors
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.variables import named_tensors
from tests.store.test_saved_runs import assert_same, make_probe, network


def error_of(function, *arguments, **settings):
    with pytest.raises(UserError) as error:
        function(*arguments, **settings)
    return str(error.value)


def test_a_probe_of_a_file_has_the_files_backbone(tmp_path):
    path = tmp_path / "net.safetensors"
    write_safetensors(path, named_tensors(network(seed=5)), {})
    run = load_run(make_probe(tmp_path / "probe", path, **{"model.width": 4}), need="classifier")
    assert_same(run.variables["params"]["backbone"], network(seed=5)["params"]["backbone"])
    assert_same(run.variables["batch_stats"], network(seed=5)["batch_stats"])
    assert_same(run.variables["params"]["classifier"], network(seed=1, parts=("classifier",))["params"]["classifier"])
    assert "does not fit backbone" in error_of(load_run, make_probe(tmp_path / "narrow", path, **{"model.width": 2}))
