"""How fast it is: ratios measured in one run, interleaved, medians with the least and the most."""

import time

import numpy as np


def interleaved(contestants, rounds):
    """Times each contestant once a round, in turn, so that a slow minute of the machine falls on all of them.

    Args:
        contestants: name → function without arguments; each is called once before, to warm up.
        rounds: number of rounds.

    Returns:
        name → seconds, float64 [rounds].
    """
    for run in contestants.values():
        run()
    seconds = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def table(seconds, images, baseline):
    """Images per second and the ratio to the baseline of the same round, as lines to read."""
    width = max(map(len, seconds))
    yield f"{'':{width}}  {'images/s':>8}  ratio to {baseline} (least to most of {len(seconds[baseline])} rounds)"
    for name, values in seconds.items():
        ratio = seconds[baseline] / values
        speed = np.median(images / values)
        yield f"{name:{width}}  {speed:8.1f}  {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"


def record(seconds, images, baseline):
    """The same as plain values, for a JSON file."""
    return {
        name: {
            "images_per_second": float(np.median(images / values)),
            "ratio_median": float(np.median(seconds[baseline] / values)),
            "ratio_min": float((seconds[baseline] / values).min()),
            "ratio_max": float((seconds[baseline] / values).max()),
        }
        for name, values in seconds.items()
    }
