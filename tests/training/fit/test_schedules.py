"""Learning rate schedules."""

import keras
import numpy as np
import pytest

from training.fit.schedules import FINAL, constant, cosine, cosine_to_tenth, exponential

pytestmark = pytest.mark.unit


def rates(schedule, peak=0.5, steps=100, warmup_steps=0):
    rate = schedule(peak, steps, warmup_steps)
    return np.array([float(rate(step)) if callable(rate) else rate for step in range(steps + 1)])


def test_exponential_decay_ends_at_a_hundredth_of_the_peak():
    found = rates(exponential)
    assert FINAL == 0.01
    assert found[0] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.005, rel=1e-4)
    np.testing.assert_allclose(found[1:] / found[:-1], 0.01 ** (1 / 100), rtol=1e-4)


def test_constant_rate_does_not_change():
    assert set(rates(constant)) == {0.5}


def test_cosine_rises_during_warm_up_and_falls_to_zero_or_a_tenth():
    found = rates(cosine, warmup_steps=20)
    assert found.argmax() == 20
    assert (found[0], found[20], found[60], found[-1]) == pytest.approx((0, 0.5, 0.25, 0), abs=1e-6)
    found = rates(cosine_to_tenth, warmup_steps=20)
    assert (found[0], found[20], found[60], found[-1]) == pytest.approx((0, 0.5, 0.275, 0.05), abs=1e-6)
    assert rates(cosine_to_tenth)[0] == 0.5


@pytest.mark.parametrize("schedule", [cosine, cosine_to_tenth, exponential, constant])
def test_optimizer_accepts_every_schedule(schedule):
    optimizer = keras.optimizers.AdamW(schedule(0.5, 0, 0))  # also in a run without steps
    assert np.isfinite(float(optimizer.learning_rate))
