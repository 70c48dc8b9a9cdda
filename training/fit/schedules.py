"""Learning rate schedules. Each is a function (peak, steps, warmup_steps) → what a Keras optimizer takes."""

from typing import Any

import keras

FINAL = 0.01  # share of the peak at the end of an exponential decay


def cosine(peak: float, steps: int, warmup_steps: int) -> Any:
    """Linear warm-up, then a half cosine to 0 (I. Loshchilov and F. Hutter, "SGDR", ICLR 2017).

    Args:
        peak: largest learning rate.
        steps: steps of the whole run.
        warmup_steps: steps until the peak, from 0 to `steps`.

    Returns:
        A Keras learning rate schedule.
    """
    return _half_cosine(peak, steps, warmup_steps, 0.0)


def cosine_to_tenth(peak: float, steps: int, warmup_steps: int) -> Any:
    """As `cosine`, but to a tenth of the peak, so that SWA averages weights that still change.

    Args, returns: see `cosine`.
    """
    return _half_cosine(peak, steps, warmup_steps, 0.1)


def exponential(peak: float, steps: int, warmup_steps: int) -> Any:
    """Exponential decay from the peak to one hundredth of it. No warm-up."""
    return keras.optimizers.schedules.ExponentialDecay(peak, max(1, steps), FINAL)


def constant(peak: float, steps: int, warmup_steps: int) -> Any:
    """The same learning rate throughout. No warm-up."""
    return peak


def _half_cosine(peak: float, steps: int, warmup_steps: int, end: float) -> Any:
    target = peak if warmup_steps else None
    start = 0.0 if warmup_steps else peak
    return keras.optimizers.schedules.CosineDecay(
        start, max(1, steps - warmup_steps), end, warmup_target=target, warmup_steps=warmup_steps
    )


WITH_WARMUP = (cosine, cosine_to_tenth)
