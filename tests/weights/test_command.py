"""Mistakes on the command line of weights."""

import pytest

from gensupcon_jax.weights import command


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ("command", "--help")),
        (["evaluate"], ("evaluate", "export", "show")),
        (["export", "--workdir", "run"], ("--output",)),
        (["export", "--workdir", "none", "--output", "x.safetensors"], ("none is no folder",)),
        (["export", "--workdir", "run", "--output", "x.onnx"], ("x.onnx", ".safetensors or .stablehlo")),
        (["export", "--workdir", "run", "--output", "old.stablehlo"], ("old.stablehlo", "not overwritten")),
        (["show", "none.safetensors"], ("is not there",)),
        (["show", "none.stablehlo"], ("is not there",)),
        (["show", "old.stablehlo"], ("cannot be read",)),
        (["show", "run"], ("is not a file of weights",)),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_line(tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "old.stablehlo").write_bytes(b"old")
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert str(stop.value.code).startswith("error: ")
    assert all(part in stop.value.code for part in parts)
    assert "\n" not in stop.value.code
    assert (tmp_path / "old.stablehlo").read_bytes() == b"old"
