"""How long a run takes, from its first steps."""

import pytest

from gensupcon_jax.run.assemble import Lengths
from gensupcon_jax.run.estimate import Amounts, Estimator, amounts_left, estimate, seconds_left

AMOUNTS = Amounts(steps=100, batch_views=128, validations=4, validation_images=256, final_images=512)


def test_seconds_by_hand():
    training, evaluation = seconds_left(AMOUNTS, step_seconds=1.28, compiled_seconds=8.0)
    assert training == pytest.approx(128.0)
    assert evaluation == pytest.approx((4 * 256 + 512) * 0.5 * 0.01 + 8.0 + 12.0)


def test_the_sentence_names_training_and_evaluation():
    assert estimate(AMOUNTS, 1.28, 8.0) == (
        "about 2 min 36 s left: 2 min 8 s of training (100 steps), 28 s of evaluation and report"
    )
    assert estimate(AMOUNTS._replace(steps=2, validations=0, final_images=0), 0.1, 0.5) is None  # seconds


LENGTHS = Lengths(per_epoch=3, warmup_steps=15, total_steps=300, evaluate_steps=100, checkpoint_steps=100)
IMAGES = {"train": 210, "validation": 30, "test": 60}


def left(step):
    return amounts_left(LENGTHS, IMAGES, batch_views=128, step=step)


def test_what_is_left_after_a_step():
    assert left(100) == Amounts(200, 128, 2, 240, 2 * 300 + 60)
    assert amounts_left(LENGTHS._replace(evaluate_steps=0), IMAGES, 128, 100).validations == 1


def test_it_is_said_once_when_enough_steps_were_timed():
    estimator = Estimator(left, start_step=0)
    assert estimator.sentence(1, 21.0) is None  # mostly compilation
    assert estimator.sentence(4, 3.0) is None
    sentence = estimator.sentence(10, 6.0) or ""
    assert sentence.startswith("about 5 min ")
    assert "4 min 50 s of training (290 steps)" in sentence
    assert estimator.sentence(20, 10.0) is None


def test_a_run_that_resumes_is_estimated_from_its_own_steps():
    estimator = Estimator(left, start_step=200)
    assert estimator.sentence(210, 15.0) is None
    assert "80 s of training (80 steps)" in (estimator.sentence(220, 10.0) or "")
