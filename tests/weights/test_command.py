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
        (["export", "--workdir", "run", "--output", "x.onnx"], ("x.onnx", ".safetensors or .stablehlo")),
        (["export", "--workdir", "run", "--output", "old.stablehlo"], ("old.stablehlo", "not overwritten")),
        (["show", "none.safetensors"], ("does not exist",)),
        (["show", "none.stablehlo"], ("does not exist",)),
        (["show", "old.stablehlo"], ("cannot be read",)),
        (["show", "run"], ("is not a weights file",)),
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
