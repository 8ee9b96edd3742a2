"""The learning rate at each step, and SGD against torch.optim.SGD's formula."""

import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax import optimizer


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine():
    rate = optimizer.warmup_cosine(peak=0.5, start=0.1, final=0.02, warmup_steps=4, total_steps=12)
    np.testing.assert_allclose([rate(step) for step in (0, 1, 2, 4)], [0.1, 0.2, 0.3, 0.5], rtol=1e-6)
    assert float(rate(8)) == pytest.approx((0.5 + 0.02) / 2)  # half way down
    assert float(rate(12)) == pytest.approx(0.02)
    assert float(rate(50)) == pytest.approx(0.02)


def test_without_warm_up_the_peak_comes_first():
    rate = optimizer.warmup_cosine(peak=0.5, start=0.1, final=0.0, warmup_steps=0, total_steps=10)
    assert float(rate(0)) == pytest.approx(0.5)
    assert float(rate(5)) == pytest.approx(0.25)


@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_runs_shorter_than_the_warm_up_have_a_rate(total_steps):
    rate = optimizer.warmup_cosine(peak=0.5, start=0.1, final=0.0, warmup_steps=total_steps, total_steps=total_steps)
    assert np.isfinite([rate(step) for step in range(total_steps)]).all()


def test_sgd_is_that_of_torch():
    tx = optimizer.sgd(lambda step: 0.1 / (step + 1), momentum=0.9, weight_decay=0.01)
    parameter, state, velocity = jnp.float32(2.0), tx.init(jnp.float32(2.0)), 0.0
    expected = 2.0
    for step, gradient in enumerate((1.0, -0.5, 0.25)):
        velocity = 0.9 * velocity + gradient + 0.01 * expected  # torch: decay joins the gradient before the momentum
        expected -= 0.1 / (step + 1) * velocity
        update, state = tx.update(jnp.float32(gradient), state, parameter)
        parameter = parameter + update
    assert float(parameter) == pytest.approx(expected, rel=1e-6)
