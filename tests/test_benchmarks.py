"""The benchmarks run: the real step of a config, at the requested sizes; that of layers finds all; that of embed compares."""

import json
import re
import subprocess
import sys

import jax.numpy as jnp
import pytest

from benchmarks import layers, step
from gensupcon_jax.cluster import cpu_flags
from tests import ROOT

TINY = ("model.name=resnet_small", "model.width=4", "batch_size=16")


def printed(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(cpu_flags, "set_for_this_machine", lambda environ: None)  # jax has started already
    fields = [word for field in TINY for word in ("--set", field)]
    monkeypatch.setattr(sys, "argv", ["step", "--image_size=8", "--steps=1", *fields, *arguments])
    step.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["cifar10:genscl", "cifar10:cross_entropy"])
def test_the_step_of_a_recipe_is_timed(monkeypatch, capsys, recipe):
    line = printed(monkeypatch, capsys, "--config", recipe)
    found = re.fullmatch(r"resnet_small, 8 x 8, batch 16, .*: ([\d.]+) images/s \(median of 1 steps\), .*\n", line)
    assert found and float(found[1]) > 0


def test_a_loss_that_is_not_finite_is_not_reported():
    with pytest.raises(SystemExit, match="the loss is nan: the timed steps are not training"):
        step.seconds_of_steps(lambda state, *_: (state, {"loss": jnp.nan}), None, None, None, num_steps=1)


def test_the_layers_of_a_network_are_found_each_once_with_their_work():
    found = layers.distinct(["resnet_small", "vit_tiny_patch4"], [8])
    names = [layer.name for layer in found]
    assert len(names) == len(set(names))
    by_name = dict(zip(names, found, strict=True))
    flops, num_bytes = layers.work(by_name["Conv 3x3 2x2 64 of 8x8x32"], 5)
    assert flops == 5 * 2 * (4 * 4 * 64) * (3 * 3 * 32)
    assert num_bytes == 4 * (5 * 8 * 8 * 32 + 5 * 4 * 4 * 64 + 3 * 3 * 32 * 64)
    flops, _ = layers.work(by_name["Attention 3 of 5x192"], 2)  # 2 x 2 patches and the class token
    assert flops == 2 * (2 * 5 * 192 * (3 * 192 + 192) + 2 * 2 * 5 * 5 * 192)
    assert layers.layers_of("vit_tiny_patch16", 8) == []


def test_only_layers_far_below_the_rates_of_the_machine_are_printed(monkeypatch):
    monkeypatch.setattr(layers, "_MOST_IMAGES", 32)
    some = [layer for layer in layers.layers_of("resnet_small", 8) if layer.name == "Dense 64 of 4x4x32"]
    slow_machine, fast_machine = layers.Rates(1e3, 1e3), layers.Rates(1e18, 1e18)
    assert list(layers.rows(some, slow_machine, least_share=0.1)) == []
    (row,) = layers.rows(some, fast_machine, least_share=0.1)
    assert re.match(r"\| Dense 64 of 4x4x32 \| resnet_small, 8 px \| 32 \| [\d.]+ \| \d+ \| 0 % \|", row)


@pytest.mark.slow
def test_embedding_is_compared_with_the_training_input():
    command = [sys.executable, "-m", "benchmarks.embed", "--images", "100"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(said[said.index("{\n") :])
    assert set(found["embed_against"]) == {"training input, 2 crops", "training input, 1 crop"}
    assert all(rate > 0 for rate in found["images_per_second"].values())
