"""From a config to numbers of the run: its durations, its contrasts and its chance level."""

import math

import numpy as np
import pytest

from gensupcon_jax.configs import common, digits
from gensupcon_jax.extension import Extension
from gensupcon_jax.method.objectives import MixedBatch
from gensupcon_jax.run import assemble


def config_of(**changes):
    config = common.get_config()
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "warmup_steps", "sentences"),
    [
        ({}, 80, []),
        (
            {"epochs": 5.0},
            4,
            [
                "this run has 40 steps: the warm-up of 80 (optimizer.warmup_epochs 10) is shortened to 4"
            ],
        ),
        ({"epochs": 10.0}, 80, []),  # all of it is warm-up, as asked
        (
            {"steps": 7},
            1,
            [
                "this run has 7 steps: the warm-up of 80 (optimizer.warmup_epochs 10) is shortened to 1; evaluate.every_epochs 5 "
                "and checkpoint.every_epochs 5 are longer, so only its end counts"
            ],
        ),
        (
            {"steps": 60, "optimizer.warmup_steps": 61, "evaluate.every_epochs": 0.0, "checkpoint.every_images": 10**6},
            6,
            [
                "this run has 60 steps: the warm-up of 61 (optimizer.warmup_steps 61) is shortened to 6; "
                "checkpoint.every_images 1e+06 is longer, so only its end counts"
            ],
        ),
        (
            {"epochs": 70.0, "optimizer.schedule": "step"},
            80,
            [
                "this run has 560 steps: the rate is not lowered at the epochs 75, 90 (optimizer.decay_epochs), which it does "
                "not reach"
            ],
        ),
        ({"steps": 0}, 0, []),
    ],
)  # fmt: skip
def test_a_short_run_shortens_its_warm_up_and_says_so(changes, warmup_steps, sentences):
    config = config_of(**changes)
    assert assemble.lengths(config, per_epoch=8).warmup_steps == warmup_steps
    assert assemble.shortened(config, per_epoch=8) == sentences


def test_a_run_made_longer_has_the_warm_up_of_each_of_its_parts():
    config = config_of(steps=200, **{"optimizer.schedule": "step"})
    made = (Extension(40, 130, "constant"), Extension(130, 200, "rewarm"))
    assert assemble.lengths(config, 8, made).warmup_steps == 4
    assert assemble.shortened(config, 8, made) == [
        "this run has 200 steps, 40 before it was made longer: the warm-up of 80 (optimizer.warmup_epochs 10) is shortened to 4; "
        "the rate is not lowered at the epochs 60, 75, 90 (optimizer.decay_epochs), which it does not reach"
    ]
    made = (Extension(100, 140, "rewarm"),)
    (sentence,) = assemble.shortened(config_of(steps=140), 8, made)
    assert "the warm-up of 80 (optimizer.warmup_epochs 10) is shortened to 80, then 4" in sentence


def test_epochs_alone_may_be_small_in_the_digits_recipe():
    config = digits.get_config()
    config.epochs = 1.0
    lengths = assemble.lengths(config, per_epoch=4)
    assert (lengths.total_steps, lengths.warmup_steps) == (4, 1)
    (sentence,) = assemble.shortened(config, per_epoch=4)
    assert "the warm-up of 20 (optimizer.warmup_epochs 5) is shortened to 1" in sentence


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss.mode": "all", "augment.num_views": 3}, 3 * 32 - 1),
        ({"loss.mode": "one", "augment.num_views": 3}, 2 * 32),
        ({"loss.mode": "momentum", "momentum_encoder.queue_size": 640}, 32 + 640),
    ],
)
def test_the_contrasts_of_an_anchor(changes, expected):
    assert assemble.num_contrasts(config_of(batch_size=32, **changes)) == expected


def test_a_classifier_at_chance_level_predicts_the_shares_of_the_classes():
    labels = MixedBatch(None, np.eye(4)[None, None, 0])
    assert assemble.chance_loss(config_of(objective="cross_entropy"), labels, [0.25] * 4) == pytest.approx(math.log(4))
    by_hand = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert assemble.chance_loss(config_of(objective="linear_probe"), labels, [0.8, 0.2, 0.0]) == pytest.approx(by_hand)
    smoothed = config_of(objective="cross_entropy", **{"classifier.label_smoothing": 0.1})
    by_hand = -(0.95 * math.log(0.95) + 0.05 * math.log(0.05))
    assert assemble.chance_loss(smoothed, labels, [1.0, 0.0]) == pytest.approx(by_hand)
    assert assemble.separable_loss(smoothed, [1.0, 0.0]) == 1.0
