"""The benchmark of the step runs like main: the real step of a config, at the requested sizes."""

import re
import sys

import jax.numpy as jnp
import pytest

from benchmarks import step
from gensupcon_jax.cluster import cpu_flags

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
