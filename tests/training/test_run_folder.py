"""The folder of a run: its lock, reusing another run's fine-tuning, and the folders of earlier versions."""

import dataclasses
import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import change, shrunk, tiny

from common.errors import InUse, UserError
from common.files import digest, locked
from common.images import load_folder
from competition.synthetic import draw_folder
from training.commands.train import in_precision
from training.config import override
from training.config.override import field_names
from training.config.recipe import Data, Finetune, Head, Recipe
from training.config.record import RENAMED, RENAMED_VALUES, to_json
from training.data.augment import RandomTransforms, rand_augment
from training.data.balance import oversample
from training.data.split import split_rows
from training.evaluate.compare import collect, compare
from training.evaluate.mistakes import draw_mistakes
from training.evaluate.rows import read_rows
from training.fit import finetune
from training.fit.checkpoint import read_history
from training.fit.features import FeatureSpec, extract_features
from training.fit.schedules import constant
from training.model.backbones import scratch_vgg
from training.model.build import build_model
from training.model.heads import softmax_head
from training.model.trainable import FirstLast
from training.predict import predict_proba
from training.reuse import _choices
from training.run import Inputs, train
from training.run_folder import INIT, LOCK, OLD_NAMES, VAL, make_record, open_run, read_metrics, read_record, run_file
from training.trained import load_run

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("tiny_by_name")]
BASE = change(
    shrunk(
        Recipe(
            data=Data(validation_split=0.25),
            finetune=Finetune(learning_rate=1e-2, warmup_epochs=0.0),
            head=Head(kind="softmax"),
        )
    ),
    resolution_schedule=((1, 48),),
    dense_units=(8,),
)
SVM = change(BASE, kind="quasi_svm", epochs=3)


@pytest.fixture(scope="module")
def reuse_data(tmp_path_factory):
    """Two folders of class folders, train and test: three classes of synthetic leaves."""
    folder = tmp_path_factory.mktemp("reuse_data")
    draw_folder(folder / "train", 8, classes=3, side=32)
    draw_folder(folder / "test", 4, classes=3, side=32, seed=5)
    return folder


@pytest.fixture(scope="module")
def base_run(reuse_data, tmp_path_factory):
    """The folder of a finished run of `BASE`."""
    out = tmp_path_factory.mktemp("base_run") / "base"
    train(BASE, "base", Inputs(reuse_data / "train", "none"), out)
    return out


@pytest.fixture
def no_epochs(monkeypatch):
    """Makes every epoch of a fine-tuning fail."""

    def fail(*arguments):
        raise AssertionError("an epoch was trained")

    monkeypatch.setattr(finetune, "_one_epoch", fail)


@pytest.fixture
def learning_rates(monkeypatch):
    """The learning rate of each epoch that is trained."""
    trained, one_epoch = [], finetune._one_epoch

    def counted(job, *rest):
        trained.append(job.recipe.finetune.learning_rate)
        return one_epoch(job, *rest)

    monkeypatch.setattr(finetune, "_one_epoch", counted)
    return trained


def reusing(folder, *runs, require=False):
    return Inputs(folder / "train", "none", None, runs, require)


def with_split(folder, sha256):
    """Changes the hash of the images that a run holds out; earlier versions have none."""
    record = saved(folder)
    (folder / "run.json").write_text(json.dumps({**record, "val_sha256": sha256}), "utf-8")


def saved(folder):
    """What `run.json` says."""
    return json.loads((folder / "run.json").read_text("utf-8"))


def test_a_finished_fine_tuning_is_reused_though_the_head_failed(
    reuse_data, tmp_path, monkeypatch, no_epochs, base_run
):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(base_run, unfinished)
    (unfinished / "metrics.json").unlink()
    with pytest.raises(UserError, match="--reuse .*unfinished if its fine-tuning is finished"):
        train(change(BASE, views=3), "base", Inputs(reuse_data / "train", "none"), unfinished)
    train(BASE, "base", reusing(reuse_data, unfinished, require=True), tmp_path / "again")
    assert saved(tmp_path / "again")["finetuning_of"] == str(unfinished)


def test_an_unfinished_run_with_another_split_is_not_continued(reuse_data, base_run, tmp_path, no_epochs):
    """Its epochs trained on images that are held out now."""
    unfinished = shutil.copytree(base_run, tmp_path / "unfinished")
    (unfinished / "metrics.json").unlink()
    inputs = Inputs(reuse_data / "train", "none")
    with_split(unfinished, "0" * 64)
    with pytest.raises(UserError, match="unfinished run that holds out other images, drawn by another version"):
        train(BASE, "base", inputs, unfinished)
    with_split(unfinished, "")  # of an earlier version
    train(BASE, "base", inputs, unfinished)
    assert (unfinished / "metrics.json").is_file()


# The lock


def test_a_run_that_another_process_trains_is_refused_and_not_changed(reuse_data, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with locked(out / LOCK, "it"), pytest.raises(InUse, match=f"run .*out is in use by process {os.getpid()}"):
        train(BASE, "base", Inputs(reuse_data / "train", "none"), out)
    assert [path.name for path in out.iterdir()] == [LOCK]
    assert train(BASE, "base", Inputs(reuse_data / "train", "none"), out)["epochs"] == 1  # once it is free


def test_temporary_files_of_a_killed_process_are_removed(reuse_data, base_run, tmp_path):
    out = shutil.copytree(base_run, tmp_path / "out")
    (out / "metrics.json").unlink()
    (out / ".tmp-123-history.csv").write_text("half")
    (out / ".tmp-123-folder").mkdir()
    train(BASE, "base", Inputs(reuse_data / "train", "none"), out)
    assert not list(out.glob(".tmp-*"))


# Reusing the fine-tuning of another run


def test_without_reuse_nothing_is_taken_over(reuse_data, base_run, tmp_path, no_epochs, capsys):
    beside = shutil.copytree(base_run, tmp_path / "base")
    with pytest.raises(AssertionError, match="an epoch was trained"):
        train(SVM, "svm", Inputs(reuse_data / "train", "none"), beside.with_name("svm"))
    assert "reusing" not in capsys.readouterr().out


def test_the_fine_tuning_of_a_given_run_is_reused(reuse_data, base_run, tmp_path, no_epochs, capsys):
    out = tmp_path / "svm"
    recipe = change(SVM, views=3, tta_transforms=("none", "both"))
    result = train(recipe, "svm", reusing(reuse_data, base_run, require=True), out)
    assert f"the same as in {base_run}: reusing" in capsys.readouterr().out
    for name in ("history.csv", "finetuned.weights.h5"):
        assert (out / name).read_bytes() == (base_run / name).read_bytes()
    record = saved(out)
    assert (record["name"], record["finetuning_of"]) == ("svm", str(base_run))
    assert read_record(out).recipe == recipe
    assert (result["epochs"], len(read_history(out / "head_history.csv"))) == (1, 3)
    model = build_model(tiny("none"), softmax_head(BASE.finetune, 8, 3), (32, 32), 48)
    model.load_weights(base_run / "finetuned.weights.h5")
    images = load_folder(reuse_data / "train")
    val = images.rows(split_rows(recipe.data, images)[1])
    with np.load(out / "features.npz") as file:  # computed by the fine-tuned backbone
        expected = extract_features(model.get_layer("backbone"), val.images, FeatureSpec(48))[0]
        np.testing.assert_allclose(file["val"][0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 2e-2},
        {"seed": 1},
        {"class_repeats": {"Species1": 2}},
        {"dense_units": ()},
        {"trainable": FirstLast(3, 3)},
    ],
    ids=str,
)
def test_another_fine_tuning_is_trained_or_refused_if_reuse_is_required(
    reuse_data, base_run, tmp_path, no_epochs, changes
):
    recipe = change(SVM, **changes)
    with pytest.raises(AssertionError, match="an epoch was trained"):
        train(recipe, "svm", reusing(reuse_data, base_run), tmp_path / "svm")
    with pytest.raises(UserError, match="--reuse: .*base.* fine-tuning of svm"):
        train(recipe, "svm", reusing(reuse_data, base_run, require=True), tmp_path / "required")


def test_the_first_run_that_fits_is_reused(reuse_data, base_run, tmp_path, no_epochs, capsys):
    other = shutil.copytree(base_run, tmp_path / "other")
    record = saved(other)
    record["recipe"]["seed"] = 7
    (other / "run.json").write_text(json.dumps(record))
    train(SVM, "svm", reusing(reuse_data, other, base_run), tmp_path / "svm")
    assert f"{base_run}: reusing" in capsys.readouterr().out


def test_an_unfinished_run_cannot_be_reused(reuse_data, base_run, tmp_path, no_epochs):
    unfinished = shutil.copytree(base_run, tmp_path / "unfinished")
    (unfinished / "metrics.json").unlink()
    (unfinished / "history.csv").write_text("epoch,loss\n", "utf-8")  # no epoch is done
    with pytest.raises(UserError, match="unfinished is not finished"):
        train(SVM, "svm", reusing(reuse_data, unfinished), tmp_path / "svm")


@pytest.mark.parametrize("version", ["now", "earlier", "earlier, unfinished"])
def test_a_run_that_held_out_other_images_is_not_reused(reuse_data, base_run, tmp_path, no_epochs, version):
    """Another version of scikit-learn may draw other folds of groups."""
    other = shutil.copytree(base_run, tmp_path / "other")
    with np.load(other / "val.npz") as file:
        arrays = dict(file)
    np.savez(other / "val.npz", **{**arrays, "rows": arrays["rows"][::-1] + 1})
    with_split(other, digest(arrays["rows"][::-1] + 1) if version == "now" else "")
    if "unfinished" in version:
        (other / "val.npz").unlink()
    with pytest.raises(UserError, match="--reuse: no run among .*other has the fine-tuning"):
        train(SVM, "svm", reusing(reuse_data, other, require=True), tmp_path / "svm")


def test_a_missing_run_cannot_be_reused(reuse_data, tmp_path, no_epochs):
    with pytest.raises(UserError, match="no folder .*nowhere"):
        train(SVM, "svm", reusing(reuse_data, tmp_path / "nowhere"), tmp_path / "svm")


@pytest.mark.slow
def test_a_fine_tuning_is_reused_with_its_head_warm_up(reuse_data, tmp_path, monkeypatch):
    recipe = change(BASE, head_warmup_epochs=2)
    first = train(recipe, "first", Inputs(reuse_data / "train", "none"), tmp_path / "first")
    monkeypatch.setattr(finetune, "_one_epoch", None)
    monkeypatch.setattr(finetune, "_warm_up_head", None)
    second = change(recipe, kind="quasi_svm", epochs=1)
    second = train(second, "second", reusing(reuse_data, tmp_path / "first"), tmp_path / "second")
    assert first["head_warmup_epochs"] == second["head_warmup_epochs"] == 2


@pytest.mark.slow
def test_a_given_run_is_reused_as_what_another_starts_from(reuse_data, base_run, tmp_path, learning_rates, capsys):
    out = tmp_path / "longer"
    longer = change(SVM, init_from=BASE.finetune, learning_rate=1e-5)
    result = train(longer, "longer", reusing(reuse_data, base_run, require=True), out)
    assert f"{base_run}: reusing" in capsys.readouterr().out
    assert (learning_rates, result["epochs"]) == ([1e-5], 2)
    for name in ("history.csv", "finetuned.weights.h5"):
        assert (out / INIT / name).read_bytes() == (base_run / name).read_bytes()
    assert saved(out)["init_from_of"] == str(base_run)
    # a fine-tuning that starts from one that starts from another
    again = change(longer, init_from=longer.finetune, learning_rate=1e-6)
    assert train(again, "again", reusing(reuse_data, out), tmp_path / "again")["epochs"] == 3
    assert learning_rates == [1e-5, 1e-6]


# Every field that the fine-tuned weights depend on, with another value.
OTHER_VALUES = {
    "data.validation_split": 0.1,
    "data.split_seed": 1,
    "data.folds": 2,
    "data.fold": 1,
    "data.resampling": oversample,
    "data.class_repeats": {"Species1": 2},
    "data.class_weights": True,
    "data.pipeline": rand_augment,
    "augmentation.transforms": RandomTransforms(tint=0.1),
    "augmentation.precomputed": (((), 1),),
    "augmentation.precomputed_transforms": RandomTransforms(tint=0.1),
    "finetune.init_from": BASE.finetune,
    "finetune.backbone": scratch_vgg,
    "finetune.head_warmup_epochs": 1,
    "finetune.head_warmup_learning_rate": 0.5,
    "finetune.trainable": FirstLast(1, 1),
    "finetune.train_batch_norm": False,
    "finetune.resolution_schedule": ((2, 48),),
    "finetune.learning_rate": 0.5,
    "finetune.soup": 2,
    "finetune.schedule": constant,
    "finetune.warmup_epochs": 0.5,
    "finetune.weight_decay": 0.5,
    "finetune.label_smoothing": 0.5,
    "finetune.teacher_share": 0.5,
    "finetune.batch_augmentations": (rand_augment,),
    "finetune.dense_units": (5,),
    "finetune.activation": "elu",
    "finetune.dense_l2": 0.5,
    "finetune.dropout": 0.5,
    "finetune.dense_dropout": 0.5,
    "finetune.swa_epochs": 1,
    "finetune.batch_size": 4,
    "finetune.precision": "mixed_bfloat16",
    "finetune.replicas": 2,
    "checkpoint": "last",
    "seed": 1,
}
# For the other value.
NEEDED = {
    "data.fold": {"data.folds": 2},
    "finetune.soup": {"finetune.init_from": BASE.finetune},
    "finetune.swa_epochs": {"checkpoint": "last"},
}


@pytest.fixture(scope="module")
def base_record(reuse_data):
    return make_record("base", BASE, load_folder(reuse_data / "train"), "none")


def test_every_field_outside_of_head_and_prediction_is_compared():
    names = {name for name in field_names(BASE) if not name.startswith(("head.", "prediction."))}
    sections = {"augmentation.transforms", "augmentation.precomputed_transforms"}  # compared as a whole
    assert OTHER_VALUES.keys() == {next((s for s in sections if name.startswith(f"{s}.")), name) for name in names}


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_another_value_is_another_fine_tuning(name, base_record):
    base = override.change(BASE, NEEDED.get(name, {}))
    other = override.change(base, {name: OTHER_VALUES[name]})
    assert _choices(replace(base_record, recipe=other)) != _choices(replace(base_record, recipe=base))


@pytest.mark.parametrize("name", ["classes", "data_sha256", "backbone_weights", "versions"])
def test_other_data_weights_or_software_are_another_fine_tuning(name, base_record):
    assert _choices(replace(base_record, **{name: "other"})) != _choices(base_record)


def test_head_and_prediction_are_not_part_of_the_fine_tuning(base_record):
    def of(recipe):
        return _choices(replace(base_record, recipe=recipe))

    assert of(change(BASE, kind="quasi_svm", views=5, l2=1.0, tta_transforms=("both",))) == of(BASE)
    warmed_up = change(BASE, head_warmup_epochs=1)
    assert of(change(warmed_up, views=5)) != of(warmed_up)  # the warm-up trains on these views
    assert of(change(warmed_up, feature_precision="bfloat16")) != of(warmed_up)


def test_weights_are_compared_by_their_content_or_of_earlier_versions_by_name(reuse_data, tmp_path):
    images, records = load_folder(reuse_data / "train"), {}
    for name, content in (("one/a.h5", "1"), ("two/a.h5", "2"), ("two/b.h5", "1")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        records[name] = make_record("base", BASE, images, str(path))
    one, other, renamed = records.values()
    old = replace(one, backbone_sha256="")
    assert one.differences(other) == ["--backbone-weights"]
    assert one.differences(renamed) == one.differences(old) == old.differences(other) == []
    assert old.differences(renamed) == ["--backbone-weights"]
    assert _choices(one) == _choices(renamed) != _choices(other)


def test_results_of_an_earlier_start_are_removed(base_record, tmp_path):
    """Without an epoch, nothing is continued, and the earlier start may have held out other images."""
    for recipe in (BASE, change(BASE, validation_split=0.0)):
        with open_run(tmp_path, replace(base_record, recipe=recipe)):
            assert not (tmp_path / VAL).exists() and read_record(tmp_path).recipe == recipe
            (tmp_path / VAL).touch()


# Folders of earlier versions

LONG = change(
    SVM,
    init_from=BASE.finetune,
    head_warmup_epochs=2,
    learning_rate=1e-3,
    trainable=FirstLast(4, 4),
    tta_transforms=("none", "left"),
    tta_threshold=0.9,
)


def flat(recipe):
    """The flat fields that earlier versions wrote."""
    old_values = {new: old for old, new in RENAMED_VALUES.items()}
    fields = {}
    for old, new in RENAMED.items():
        value = to_json(recipe)
        for part in new.split("."):
            value = value[part]
        fields[old] = value
    fields["keep"] = old_values.get(fields["keep"], fields["keep"])
    fields["backbone"] = old_values.get(fields["backbone"], fields["backbone"])
    fields["thaw"] = {**fields["thaw"], "name": old_values[fields["thaw"]["name"]]}
    for name in ("augmentation", "offline_augmentation"):
        fields[name] = {"name": "Augmentation", **fields[name]}
    if recipe.finetune.init_from:
        fields["start"] = {"name": "Recipe", **flat(replace(recipe, finetune=recipe.finetune.init_from))}
    return fields


def as_old(folder, recipe):
    """Gives the files of a run the names and the contents that an earlier version wrote."""
    record = saved(folder)
    (folder / "run.json").unlink()
    (folder / "recipe.json").write_text(json.dumps({**record, "recipe": flat(recipe)}), "utf-8")
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    if "head_warmup_epochs" in metrics:
        metrics["frozen_epochs"] = metrics.pop("head_warmup_epochs")
    (folder / "metrics.json").write_text(json.dumps(metrics), "utf-8")
    names = {
        "val.npz": "held.npz",
        "finetuned.weights.h5": "best.weights.h5",
        "head_warmup_history.csv": "frozen_history.csv",
        "init_from": "start",
    }
    assert {**names, "run.json": "recipe.json"} == OLD_NAMES
    for new, old in names.items():
        for path in sorted(folder.rglob(new)):
            path.rename(path.with_name(old))
    return folder


@pytest.fixture(scope="module")
def long_run(reuse_data, tmp_path_factory):
    """The folder of a finished run of `LONG`, with test images."""
    out = tmp_path_factory.mktemp("long_run") / "long"
    train(LONG, "long", Inputs(reuse_data / "train", "none", reuse_data / "test"), out)
    return out


@pytest.fixture
def old_run(long_run, tmp_path):
    """The same run as an earlier version wrote it."""
    return as_old(shutil.copytree(long_run, tmp_path / "old" / "long"), LONG)


def test_the_precision_of_an_old_run_is_found(old_run):
    recipe = read_record(old_run).recipe
    assert in_precision(change(recipe, precision="mixed_bfloat16"), [], old_run) == recipe


def test_an_old_folder_has_no_file_with_a_new_name(old_run):
    assert not [path for path in old_run.rglob("*") if path.name in OLD_NAMES]
    assert (old_run / "start" / "best.weights.h5").is_file()
    assert run_file(old_run, "history.csv") == old_run / "history.csv"


def test_an_old_record_and_its_metrics_are_read_as_new_ones(old_run, long_run):
    assert read_record(old_run) == read_record(long_run)
    assert read_record(old_run).recipe == LONG
    assert read_metrics(old_run) == read_metrics(long_run)


def test_an_old_run_is_loaded_and_predicts_the_same(old_run, reuse_data):
    trained = load_run(old_run)
    images = load_folder(reuse_data / "train")
    val = images.rows(split_rows(LONG.data, images)[1])
    with np.load(old_run / "held.npz") as file:
        expected = file["probabilities"]
    np.testing.assert_allclose(predict_proba(trained.model, val.images, trained.prediction), expected, atol=1e-6)
    assert (trained.names, trained.prediction) == (images.names, LONG.prediction)


def test_an_old_softmax_run_is_loaded(base_run, tmp_path):
    old = as_old(shutil.copytree(base_run, tmp_path / "base"), BASE)
    pairs = zip(load_run(old).model.get_weights(), load_run(base_run).model.get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_an_old_run_has_the_row_of_a_new_one(old_run, long_run, tmp_path):
    row = collect(old_run)
    assert row == collect(long_run)
    assert (row.epochs, row.planned_epochs, row.warmup_epochs) == (2, 2, 2)
    assert re.fullmatch("recipe [0-9a-f]{8}", row.settings)  # its name is that of no recipe
    assert compare([old_run], tmp_path / "runs.csv", tmp_path / "table.md") == []
    assert read_rows(tmp_path / "runs.csv") == [row]


def test_the_mistakes_of_an_old_run_are_drawn(old_run, long_run, reuse_data, tmp_path):
    lines = draw_mistakes(old_run, Inputs(reuse_data / "train"), tmp_path / "old.png")
    assert lines == draw_mistakes(long_run, Inputs(reuse_data / "train"), tmp_path / "new.png")
    assert (tmp_path / "old.png").read_bytes() == (tmp_path / "new.png").read_bytes()


def test_the_fine_tuning_of_an_old_run_is_reused(old_run, long_run, reuse_data, tmp_path, no_epochs, capsys):
    out = tmp_path / "svm"
    result = train(change(LONG, l2=1e-3), "svm", reusing(reuse_data, old_run, require=True), out)
    assert f"{old_run}: reusing" in capsys.readouterr().out
    for name in ("history.csv", "finetuned.weights.h5", "head_warmup_history.csv", "init_from/history.csv"):
        assert (out / name).read_bytes() == (long_run / name).read_bytes()
    assert not [path for path in out.rglob("*") if path.name in OLD_NAMES.values()]
    assert (result["epochs"], result["head_warmup_epochs"]) == (2, 2)


def test_an_old_run_is_reused_as_what_another_starts_from(old_run, long_run, reuse_data, tmp_path, learning_rates):
    out = tmp_path / "longer"
    longer = change(LONG, init_from=LONG.finetune, head_warmup_epochs=0, learning_rate=1e-6)
    result = train(longer, "longer", reusing(reuse_data, old_run, require=True), out)
    assert (learning_rates, result["epochs"]) == ([1e-6], 3)
    for name in ("history.csv", "finetuned.weights.h5", "head_warmup_history.csv", "init_from/history.csv"):
        assert (out / INIT / name).read_bytes() == (long_run / name).read_bytes()


def test_an_unfinished_old_run_is_refused(old_run, reuse_data, tmp_path):
    (old_run / "metrics.json").unlink()
    before = {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file() and path.name != LOCK}
    with pytest.raises(UserError, match="unfinished run of an earlier version; .*--out"):
        train(LONG, "long", Inputs(reuse_data / "train", "none"), old_run)
    assert before == {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file() and path.name != LOCK}
    for use in (load_run, collect):
        with pytest.raises(UserError, match="is not finished"):
            use(old_run)
    train(LONG, "long", reusing(reuse_data, old_run), tmp_path / "new")  # all its epochs are done
    assert saved(tmp_path / "new")["finetuning_of"] == str(old_run)


def test_a_finished_old_run_is_not_trained_again(old_run, reuse_data):
    with pytest.raises(UserError, match="holds a finished run"):
        train(LONG, "long", Inputs(reuse_data / "train", "none"), old_run)


@pytest.mark.parametrize("text", ["", "[]", '{"name": "long"}', '{"name": "x", "recipe": {"validation": 2.0}}'])
def test_a_damaged_record_is_one_clear_error(old_run, text):
    (old_run / "recipe.json").write_text(text)
    with pytest.raises(UserError) as error:
        read_record(old_run)
    assert "\n" not in str(error.value)


def test_an_old_field_that_a_record_lacks_has_its_default(old_run):
    record = json.loads((old_run / "recipe.json").read_text("utf-8"))
    for name in ("head_logit_adjustment", "test_sure", "averaged_epochs", "start"):
        del record["recipe"][name]
    (old_run / "recipe.json").write_text(json.dumps(record), "utf-8")
    recipe = read_record(old_run).recipe
    assert (recipe.head.logit_adjustment, recipe.prediction.tta_threshold) == (0.0, 1.0)
    assert (recipe.finetune.swa_epochs, recipe.finetune.init_from) == (0, None)
    assert {field.name for field in dataclasses.fields(recipe)} == set(to_json(LONG))
