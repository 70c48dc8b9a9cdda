"""How the learning rate goes over a run's steps."""

import keras

FINAL = 0.01  # what an exponential decay leaves of the peak at the end of the run


def cosine(peak, steps, warmup):
    """Linear warm-up, then a half cosine to 0 (I. Loshchilov and F. Hutter, "SGDR", ICLR 2017).

    Args:
        peak: largest learning rate.
        steps: steps of the whole run.
        warmup: steps until the peak, from 0 to `steps`.

    Returns:
        What a Keras optimizer takes as its learning rate.
    """
    return _half_cosine(peak, steps, warmup, 0.0)


def cosine_to_tenth(peak, steps, warmup):
    """As `cosine`, but to a tenth of the peak: weights that still move at the end are worth averaging.

    Args, returns: see `cosine`.
    """
    return _half_cosine(peak, steps, warmup, 0.1)


def exponential(peak, steps, warmup):
    """The same factor every step, from the peak to one hundredth of it. Has no warm-up."""
    return keras.optimizers.schedules.ExponentialDecay(peak, max(1, steps), FINAL)


def constant(peak, steps, warmup):
    """The peak all the way. Has no warm-up."""
    return peak


def _half_cosine(peak, steps, warmup, end):
    target = peak if warmup else None
    start = 0.0 if warmup else peak
    return keras.optimizers.schedules.CosineDecay(start, max(1, steps - warmup), end, warmup_target=target, warmup_steps=warmup)


WARMED_UP = (cosine, cosine_to_tenth)  # the schedules that have a warm-up
