"""Where the time of a training epoch goes, in float32, in mixed_bfloat16, and there with Keras' own layers.

  python -m benchmarks.profile released --data data/leaves/train
  python -m benchmarks.profile inception_svm --data data/leaves/train --steps 4 --rounds 3 --json profile.json

Some steps at the recipe's last input size are timed, on the processor and from random weights, and scaled to the epochs
of the whole data. The parts of an epoch are:

- forward and backward: the training step on one batch that stays in memory, less the optimizer;
- optimizer: the optimizer alone, on fixed gradients;
- data: what a step on the recipe's pipeline takes longer than one on the batch in memory, that is augmentation and
  waiting;
- validation: that of `fit`;
- weight averaging: the mean of the weights and the batch statistics (SWA), divided by the number of epochs;
- checkpoint: the files of an epoch;
- rest: the start of the pipeline and the callbacks.

Each way runs in a process of its own, and they are timed in turn. The bare step is the first two parts. The last way
has Keras' own BatchNormalization and AdamW instead of the fused ones of training/model and training/fit.

exit codes: 0 measured, 2 wrong input
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import benchmark_parser, run_benchmark
from benchmarks.process import Process
from common.cli import whole_number
from common.errors import UserError
from common.progress import progress

if TYPE_CHECKING:
    from training.config.recipe import Recipe
    from training.data.split import TrainVal

KERAS = "mixed_bfloat16, Keras' layers"
WAYS = {"float32": "float32", "mixed_bfloat16": "mixed_bfloat16", KERAS: "mixed_bfloat16"}  # name → precision
FIRST_STEPS = 2  # that are not timed: the pipeline fills its buffers
MEDIANS = ("epoch_seconds", "step_seconds", "pipeline_step_seconds", "pipeline_alone_seconds")
PARTS = ("forward and backward", "optimizer", "data", "validation", "weight averaging", "checkpoint", "rest")


@dataclass(frozen=True)
class Setting:
    """What is profiled.

    recipe: name of a recipe.
    changes: settings of its fields, as for `--set`.
    data: folder of class folders.
    steps: training steps that are timed; at most as many validation batches.
    """

    recipe: str
    changes: tuple[str, ...]
    data: str
    steps: int


class TrainingEpoch:
    """A recipe's epoch at its last input size, ready to be run and timed in parts.

    Args:
        recipe: `Recipe`.
        data: `TrainVal`.
        folder: gets the files of an epoch.
        steps: training steps that are timed; at most as many validation batches. None: those of the whole epoch.

    Attributes:
        full: training steps and validation batches of an epoch of all images.
        timed: those that are timed.
    """

    def __init__(self, recipe: "Recipe", data: "TrainVal", folder: Path, steps: int | None = None) -> None:
        from training.data.pipeline import PREFETCHED
        from training.fit.checkpoint import TrainState
        from training.fit.finetune import _compiled, _Job, make_backbone
        from training.model.heads import softmax_head

        backbone = make_backbone(recipe, "none")
        head = softmax_head(recipe.finetune, backbone.output_shape[-1], len(data.train.names))
        self.recipe, size = recipe, recipe.finetune.batch_size
        self.job = _Job(recipe, data, folder, TrainState(), backbone, head)
        self.model = _compiled(self.job, recipe.finetune.input_size)
        self.full = self.timed = (-(-len(self.job.rows) // size), -(-len(data.val) // size))
        if steps is not None:
            self.timed = (steps, min(steps, self.full[1]))
            # The pipeline must not end within the timed steps, because they would be faster without it.
            ahead = FIRST_STEPS + steps + PREFETCHED + (os.cpu_count() or 1)
            self.job.rows = np.resize(np.random.default_rng(0).permutation(self.job.rows), ahead * size)

    def batches(self) -> Any:
        """An epoch's batches from the recipe's pipeline."""
        job = self.job
        return self.recipe.data.pipeline(job.data.train, job.rows, self.recipe, 0, job.folder / "links")

    def one_batch(self) -> Any:
        """One batch of the pipeline, again and again from memory."""
        import tensorflow as tf

        pixels, labels = next(iter(self.batches()))
        return tf.data.Dataset.from_tensors((tf.constant(pixels), tf.constant(labels))).repeat()

    def fit(self, batches: Any, steps: int | None = None, validate: bool = True) -> dict[str, float]:
        """Trains as an epoch of the fine-tuning does.

        Args:
            batches: of `batches` or `one_batch`.
            steps: number of training steps, or None for all batches.
            validate: whether the validation batches are computed afterwards.

        Returns:
            Seconds: `all`, `step` (the mean without the first steps), and `validation` (0 without).
        """
        import keras

        from training.data.balance import class_weights

        ends: list[float] = []
        moments = {"begin": 0.0, "end": 0.0}
        labels = self.job.data.train.labels[self.job.rows]
        clock = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()),
            on_test_begin=lambda logs: moments.update(begin=time.perf_counter()),
            on_test_end=lambda logs: moments.update(end=time.perf_counter()),
        )
        began = time.perf_counter()
        self.model.fit(
            batches,
            steps_per_epoch=steps,
            validation_data=self._validation() if validate else None,
            class_weight=class_weights(labels) if self.recipe.data.class_weights else None,
            shuffle=False,
            callbacks=[keras.callbacks.TerminateOnNaN(), clock],
            verbose=0,
        )
        counted = ends[FIRST_STEPS - 1 :] or ends
        return {
            "all": time.perf_counter() - began,
            "step": (counted[-1] - counted[0]) / max(1, len(counted) - 1),
            "validation": moments["end"] - moments["begin"],
        }

    def _validation(self) -> Any:
        from training.data.pipeline import one_hot, plain_batches

        val, size = self.job.data.val, self.recipe.finetune.batch_size
        val = val.rows(np.arange(min(len(val), self.timed[1] * size)))
        return plain_batches(size, val.images, one_hot(val.labels, len(val.names))) if len(val) else None

    def pipeline_alone(self) -> float:
        """Seconds to make the batches of the timed steps while nothing is trained."""
        began = time.perf_counter()
        for _ in zip(range(self.timed[0]), self.batches(), strict=False):
            pass
        return time.perf_counter() - began

    def save(self) -> float:
        """Writes the files of an epoch, without weight averaging. Returns seconds."""
        from training.fit.finetune import _save_epoch

        recipe = self.recipe
        self.job.recipe = replace(recipe, finetune=replace(recipe.finetune, swa_epochs=0), checkpoint="last")
        self.job.history[:] = [{"epoch": 1}]
        began = time.perf_counter()
        _save_epoch(self.job, self.model)
        self.job.recipe = recipe
        return time.perf_counter() - began

    def optimizer(self) -> Callable[[], float]:
        """Returns a function that applies fixed gradients as often as a timed epoch has steps, and returns seconds."""
        import tensorflow as tf

        variables, optimizer = self.model.trainable_variables, self.model.optimizer
        gradients = [tf.fill(variable.shape, tf.cast(1e-3, variable.dtype)) for variable in variables]

        @tf.function
        def apply():
            optimizer.apply(gradients, variables)
            return optimizer.iterations.value

        def timed() -> float:
            began = time.perf_counter()
            for _ in range(self.timed[0]):
                apply().numpy()
            return time.perf_counter() - began

        return timed

    def averaging(self) -> tuple[float, float]:
        """Seconds to add the weights to a mean, and to measure the batch statistics on a timed epoch's images."""
        from training.fit.features import FeatureSpec
        from training.fit.swa import add_to_mean, update_batch_norm

        tune, train = self.recipe.finetune, self.job.data.train
        mean = add_to_mean([], self.model.get_weights(), 0)
        began = time.perf_counter()
        add_to_mean(mean, self.model.get_weights(), 1)
        added = time.perf_counter()
        spec = FeatureSpec(tune.input_size, self.recipe.augmentation.transforms, seed=self.recipe.seed)
        rows = self.job.rows[: self.timed[0] * tune.batch_size]
        update_batch_norm(self.job.backbone, train.images[rows], spec, tune.batch_size)
        return added - began, time.perf_counter() - added


def profiled(setting: Setting, way: str, folder: str) -> Callable[[], dict]:
    """Prepares a recipe in one of `WAYS`. Returns a function that times it once, see `_times`.

    Raises:
        UserError: no such recipe, images that cannot be read, or Keras runs on another backend.
    """
    import keras

    from training.config.override import override
    from training.recipes import load_recipe

    if keras.backend.backend() != "tensorflow":
        raise UserError(f"KERAS_BACKEND must be tensorflow, got {keras.backend.backend()}; unset it")
    recipe = override(load_recipe(setting.recipe), [*setting.changes, f"finetune.precision={WAYS[way]}"])
    if not recipe.finetune.epochs:
        raise UserError(f"the recipe must fine-tune, {setting.recipe} has no epochs; choose another one")
    if way == KERAS:
        _use_layers_of_keras()
    epoch = TrainingEpoch(recipe, _load(recipe, setting.data), Path(folder), setting.steps)
    one_batch, optimizer = epoch.one_batch(), epoch.optimizer()
    return lambda: _times(epoch, one_batch, optimizer)


def _use_layers_of_keras() -> None:
    """Replaces the fused layers and optimizer in this process."""
    import keras

    from training.fit import finetune

    def adamw(learning_rate: Any, weight_decay: float) -> Any:
        return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)

    finetune.fuse, finetune.adamw = lambda model: model, adamw


def _load(recipe: "Recipe", data: str) -> "TrainVal":
    """The images as the recipe splits and balances them."""
    from training.inputs import Inputs, load_inputs
    from training.run import split_and_balance

    with contextlib.redirect_stdout(io.StringIO()):  # notes about the images, which a training prints
        images, _ = load_inputs(Inputs(Path(data)))
    return split_and_balance(recipe, images)


def _times(epoch: TrainingEpoch, one_batch: Any, optimizer: Callable[[], float]) -> dict[str, Any]:
    """Times everything once.

    Returns:
        Seconds of one whole epoch by its parts (`parts`), and what they were computed from.
    """
    (steps, batches), (full_steps, full_batches) = epoch.timed, epoch.full
    run = FIRST_STEPS + steps
    bare = epoch.fit(one_batch, run, validate=False)["step"]
    trained = epoch.fit(epoch.batches(), run)
    alone, apply, files = epoch.pipeline_alone() / steps, optimizer() / steps, epoch.save()
    tune = epoch.recipe.finetune
    added, recalibrated = epoch.averaging() if tune.swa_epochs else (0.0, 0.0)
    recalibrations = len(epoch.job.data.train) / (steps * tune.batch_size)
    seconds = (
        full_steps * (bare - apply),
        full_steps * apply,
        full_steps * (trained["step"] - bare),
        trained["validation"] * full_batches / max(1, batches),
        (added * tune.swa_epochs + recalibrated * recalibrations) / tune.epochs,
        files,
        trained["all"] - run * trained["step"] - trained["validation"],
    )
    return {
        "parts": dict(zip(PARTS, seconds, strict=True)),
        "epoch_seconds": sum(seconds),
        "bare_share": full_steps * bare / sum(seconds),
        "step_share": bare / trained["step"],
        "step_seconds": bare,
        "pipeline_step_seconds": trained["step"],
        "pipeline_alone_seconds": alone,
        "epoch": {"steps": full_steps, "validation_batches": full_batches, "batch_size": tune.batch_size},
        "input_size": tune.input_size,
    }


def measure(setting: Setting, ways: list[str], rounds: int) -> dict[str, list[dict]]:
    """Times some of `WAYS` in turn, each in a process of its own.

    Returns:
        Way → the `_times` of each round.
    """
    with tempfile.TemporaryDirectory(prefix="profile-") as folder, contextlib.ExitStack() as stack:
        processes = {}
        for way in progress(ways, "preparing", unit="way"):
            processes[way] = stack.enter_context(Process(way, profiled, setting, way, folder))
            processes[way]()  # compiles
        times: dict[str, list[dict]] = {way: [] for way in processes}
        for _ in progress(range(rounds), "profiling", unit="round"):
            for way, process in processes.items():
                times[way].append(process())
    return times


def record(times: list[dict], baseline: list[dict]) -> dict:
    """Medians of some rounds, the ranges of the shares, and the ratio of a baseline's seconds to these."""
    ratios = [before["epoch_seconds"] / now["epoch_seconds"] for before, now in zip(baseline, times, strict=True)]
    ranges = {share: [row[share] for row in times] for share in ("bare_share", "step_share")}
    summaries = (("", np.median), ("_min", np.min), ("_max", np.max))
    return {
        **times[0],
        **{name: float(np.median([row[name] for row in times])) for name in MEDIANS},
        "parts": {part: float(np.median([row["parts"][part] for row in times])) for part in PARTS},
        **{f"{share}{key}": float(f(values)) for share, values in ranges.items() for key, f in summaries},
        **{f"ratio_{f.__name__}": float(f(ratios)) for f in (np.median, np.min, np.max)},
    }


def table(rows: dict[str, dict]) -> Iterator[str]:
    """The lines of a table of `record`s."""
    width = max(map(len, PARTS))
    yield f"{'seconds of an epoch':{width}}  " + "  ".join(f"{way:>18}" for way in rows)
    for part in PARTS:
        cells = (
            f"{row['parts'][part]:8.1f} ({row['parts'][part] / row['epoch_seconds']:5.1%})" for row in rows.values()
        )
        yield f"{part:{width}}  " + "  ".join(f"{cell:>18}" for cell in cells)
    yield f"{'whole epoch':{width}}  " + "  ".join(f"{row['epoch_seconds']:18.1f}" for row in rows.values())
    first = next(iter(rows))
    for way, row in rows.items():
        share, step = (
            f"{row[key]:.1%} ({row[f'{key}_min']:.1%} to {row[f'{key}_max']:.1%})"
            for key in ("bare_share", "step_share")
        )
        ratio = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        yield f"{way}: the bare step is {share} of the epoch, which is {ratio} times as fast as in {first}"
        yield f"  it is {step} of a step on augmented batches"
        yield f"  a batch alone takes {row['pipeline_alone_seconds']:.3f} s, a bare step {row['step_seconds']:.3f} s"


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints. Returns the exit code."""
    parser = benchmark_parser("profile", __doc__)
    parser.add_argument("recipe", help="see python -m training list")
    parser.add_argument("--data", required=True, metavar="DIR", help="class folders")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changes the recipe")
    parser.add_argument(
        "--steps", type=whole_number, default=6, help="training steps of a round (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=whole_number, default=5, help="timed rounds (default: %(default)s)")
    parser.add_argument(
        "--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY", help=f"{'; '.join(WAYS)} (default: all)"
    )
    return run_benchmark(parser.parse_args(arguments), _run)


def _run(options: argparse.Namespace) -> dict:
    setting = Setting(options.recipe, tuple(options.set), options.data, options.steps)
    times = measure(setting, list(dict.fromkeys(options.ways)), options.rounds)
    baseline = next(iter(times.values()))
    rows = {way: record(rounds, baseline) for way, rounds in times.items()}
    print("\n".join(table(rows)))
    return {"recipe": options.recipe, "steps": options.steps, "rounds": options.rounds, "ways": rows}


if __name__ == "__main__":
    sys.exit(main())
