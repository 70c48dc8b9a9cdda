"""benchmarks.profile: the parts of an epoch of a small network, and the summary of its rounds."""

import keras
import pytest

from benchmarks import profile
from benchmarks.profile import PARTS, Setting, profiled, record, table
from benchmarks.result import read_result
from common.errors import UserError
from docs import fill
from training.fit import finetune

epoch = profile.TrainingEpoch
SMALL = (
    "finetune.resolution_schedule=((4, 32),)",
    "finetune.batch_size=4",
    "finetune.warmup_epochs=0",
    "augmentation.precomputed=()",
)


def times(epoch, step):
    """What a round returns, of an epoch with 10 steps."""
    parts = dict.fromkeys(PARTS, 0.0) | {"forward and backward": 10 * step, "data": epoch - 10 * step}
    seconds = {"step_seconds": step, "pipeline_step_seconds": epoch / 10, "pipeline_alone_seconds": 0.1}
    return {"parts": parts, "epoch_seconds": epoch, "bare_share": 10 * step / epoch, "step_share": 0.5, **seconds}


@pytest.mark.unit
def test_record_has_medians_the_range_of_the_share_and_ratios_of_the_same_round():
    row = record([times(5, 0.25), times(4, 0.4), times(8, 0.4)], [times(10, 1), times(4, 0.2), times(8, 0.4)])
    assert (row["epoch_seconds"], row["step_seconds"]) == (5, 0.4)
    assert (row["parts"]["forward and backward"], row["parts"]["data"]) == (4, 2.5)
    assert (row["bare_share_min"], row["bare_share"], row["bare_share_max"]) == (0.5, 0.5, 1.0)
    assert (row["ratio_min"], row["ratio_median"], row["ratio_max"]) == (1, 1, 2)
    lines = list(table({"float32": row}))
    assert [line.split("  ")[0].strip() for line in lines[1:8]] == list(PARTS)
    assert "50.0% (50.0% to 100.0%)" in lines[9]
    filled = fill._profile_rows({"recipe": "scratch_vgg", "ways": {"float32": row}})
    assert "| share of the bare step in the epoch | 50.0 % (50.0 % to 100.0 %) |" in filled
    assert "| share of the bare step in a step on augmented batches | 50.0 % (50.0 % to 50.0 %) |" in filled


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changes", "steps", "validation_batches", "averages"),
    [
        pytest.param(("data.validation_split=0.25", "data.class_weights=True"), 5, 2, False, marks=pytest.mark.slow),
        (("data.validation_split=0", "finetune.swa_epochs=2", "checkpoint=last"), 6, 0, True),
    ],
)
def test_parts_are_those_of_a_whole_epoch(leaf_folder, tmp_path, changes, steps, validation_batches, averages):
    measured = profiled(Setting("scratch_vgg", SMALL + changes, str(leaf_folder), 2), "float32", str(tmp_path))
    measured()
    row = measured()
    assert row["epoch"] == {"steps": steps, "validation_batches": validation_batches, "batch_size": 4}
    assert row["input_size"] == 32
    parts = row["parts"]
    assert list(parts) == list(PARTS)
    assert row["epoch_seconds"] == pytest.approx(sum(parts.values()))
    assert parts["forward and backward"] + parts["optimizer"] == pytest.approx(steps * row["step_seconds"])
    assert row["bare_share"] == pytest.approx(steps * row["step_seconds"] / row["epoch_seconds"])
    assert row["step_share"] == pytest.approx(row["step_seconds"] / row["pipeline_step_seconds"])
    assert min(parts["optimizer"], parts["checkpoint"], row["pipeline_alone_seconds"]) > 0
    assert (parts["validation"] > 0) == (validation_batches > 0)
    assert (parts["weight averaging"] > 0) == averages


@pytest.mark.integration
@pytest.mark.parametrize(
    ("recipe", "changes", "text"),
    [
        ("onlin", (), "no recipe"),
        ("scratch_vgg", ("finetune.nothing=1",), "nothing"),
        ("inception_svm", ("finetune.resolution_schedule=((0, 96),)", "finetune.warmup_epochs=0"), "no epochs"),
    ],
)
def test_recipe_that_cannot_be_profiled_is_refused(leaf_folder, tmp_path, recipe, changes, text):
    with pytest.raises(UserError, match=text):
        profiled(Setting(recipe, changes, str(leaf_folder), 2), "float32", str(tmp_path))


@pytest.mark.slow
def test_all_ways_are_compared(leaf_folder, tmp_path):
    path = tmp_path / "profile.json"
    options = ["--data", str(leaf_folder), "--steps", "2", "--rounds", "2", "--json", str(path)]
    settings = [word for change in SMALL for word in ("--set", change)]
    assert profile.main(["scratch_vgg", *options, *settings]) == 0
    rows = read_result(path)["ways"]
    assert list(rows) == list(profile.WAYS)
    assert rows["float32"]["ratio_median"] == 1
    assert all(row["epoch_seconds"] > 0 for row in rows.values())


@pytest.mark.integration
def test_last_way_has_the_layers_of_keras(leaf_folder, tmp_path, monkeypatch):
    for name in ("fuse", "adamw"):  # so that they are put back
        monkeypatch.setattr(finetune, name, getattr(finetune, name))
    made = []
    monkeypatch.setattr(profile, "TrainingEpoch", lambda *rest: made.append(epoch(*rest)) or made[0])
    profiled(Setting("scratch_vgg", SMALL, str(leaf_folder), 2), profile.KERAS, str(tmp_path))
    assert type(made[0].model.optimizer) is keras.optimizers.AdamW
    norms = [layer for layer in made[0].job.backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert {type(norm) for norm in norms} == {keras.layers.BatchNormalization}
