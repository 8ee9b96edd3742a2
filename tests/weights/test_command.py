"""Mistakes on the command line of weights."""

import pytest

from tests.running import told


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ("command", "--help")),
        (["shwo"], ("did you mean show?",)),
        (["show"], ("FILE", "weights show --help")),
        (["evaluate"], ("evaluate", "export", "show")),
        (["export", "--workdir", "run"], ("--output",)),
        (["export", "--workdir", "none", "--output", "x.safetensors"], ("none is not a folder",)),
        (
            ["export", "--workdir", "run", "--output", "x.bin"],
            ("x.bin", ".safetensors, .stablehlo, .onnx", "--format hub"),
        ),
        (["export", "--workdir", "run", "--output", "old.stablehlo"], ("old.stablehlo", "is kept")),
        (["show", "none.safetensors"], ("does not exist",)),
        (["show", "none.stablehlo"], ("does not exist",)),
        (["show", "none.onnx"], ("does not exist",)),
        (["show", "old.stablehlo"], ("old.stablehlo.json is missing", "export the run again")),
        (["show", "run"], ("contains no config.json", "not the workdir of a run")),
        (["export", "--output", "x.onnx"], ("the workdir of the run is missing", "export SOURCE --output X")),
        (["export", "run", "--workdir", "run", "--output", "x.onnx"], ("given twice",)),
        (["export", "run", "--output", "x.onnx", "--format", "stablehlo"], ("a name with the ending .stablehlo",)),
        (["export", "run", "--output", "x.onnx", "--format", "hub"], ("no such ending, as it is a folder",)),
        (["export", "run", "--output", "x", "--format", "torch"], ("--format", "safetensors, stablehlo, onnx, hub")),
        (["export", "run", "--output", "x.onnx", "--head"], ("--head is given", "--format safetensors")),
        (["export", "run", "--output", "x.onnx", "--license", "mit"], ("--license is given", "--format hub")),
        (["export", "run", "--output", "x", "--format", "onnx"], ("a name with the ending .onnx",)),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_line(tmp_path, monkeypatch, capfd, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "old.stablehlo").write_bytes(b"old")
    status, printed, said = told(capfd, "weights", *arguments)
    assert (status, printed) == (1, "")
    assert said.startswith("error: ")
    assert [part for part in parts if part not in said] == []
    assert said.count("\n") == 1
    assert (tmp_path / "old.stablehlo").read_bytes() == b"old"
