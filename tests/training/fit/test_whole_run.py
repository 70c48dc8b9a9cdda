"""A whole run: every file that it writes, its model, and folders that are refused."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import change, shrunk, tiny
from PIL import Image

from common.errors import UserError
from competition.synthetic import draw_folder, draw_images
from training import planned, run
from training.config.recipe import Data, Finetune, Prediction, Recipe
from training.config.record import to_json
from training.evaluate import plots
from training.fit.checkpoint import read_history
from training.model import backbones
from training.run import Inputs, train
from training.trained import finetuned_model, load_run

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("tiny_by_name")]
FILES = {  # every file of a run that the documentation names, and the two that continuing it needs
    "run.json",
    "history.csv",
    "head_history.csv",
    "finetuned.weights.h5",
    "features.npz",
    "samples.npz",
    "val.npz",
    "quasi_svm.weights.h5",
    "metrics.json",
    "curves.png",
    "head_curves.png",
    "confusion.png",
    "checkpoint.npz",
    ".lock",
}


@pytest.fixture(scope="module")
def whole_run(class_folder, tmp_path_factory):
    """(recipe, folder, metrics) of a finished run."""
    recipe = change(
        shrunk(Recipe(data=Data(validation_split=0.25), finetune=Finetune(learning_rate=1e-2, warmup_epochs=0.5))),
        class_repeats={"Species1": 3},
        tta_transforms=("none", "both"),
    )
    out = tmp_path_factory.mktemp("runs") / "deeper" / "first"
    return recipe, out, train(recipe, "tiny", Inputs(class_folder, "none"), out)


@pytest.fixture
def almost_finished(whole_run, tmp_path):
    """A copy of the run as it is just before its end."""
    out = shutil.copytree(whole_run[1], tmp_path / "unfinished")
    (out / "metrics.json").unlink()
    return out


def test_run_writes_everything_about_it(whole_run):
    recipe, out, result = whole_run
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in out.parent.iterdir()} == {"first", ".features"}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in out.glob("*.png"))
    record = json.loads((out / "run.json").read_text("utf-8"))
    assert record["name"] == "tiny"
    assert record["recipe"] == json.loads(json.dumps(to_json(recipe)))
    assert record["classes"] == ["Species1", "Species2", "Species3"]
    assert record["image_shape"] == [32, 32]
    assert record["images"] == 24
    assert record["versions"]["keras"] == keras.__version__
    assert [row["size"] for row in read_history(out / "history.csv")] == [75, 80]
    assert [row["epoch"] for row in read_history(out / "head_history.csv")] == [1, 2, 3, 4]
    assert json.loads((out / "metrics.json").read_text("utf-8")) == result
    assert result["epochs"] == 2
    assert result["training_images"] == 18
    model = finetuned_model(recipe, tuple(record["classes"]), (32, 32), out)
    assert result["trainable_parameters"] == sum(np.prod(v.shape) for v in model.trainable_variables)


def test_validation_images_are_not_repeated(whole_run):
    result = whole_run[2]
    assert result["images"] == 6
    assert [c["images"] for c in result["classes"].values()] == [2, 2, 2]


def test_loaded_model_is_the_measured_one(whole_run, train_val):
    _, out, result = whole_run
    loaded = load_run(out)
    assert loaded.names == ("Species1", "Species2", "Species3")
    assert loaded.prediction == Prediction(("none", "both"), 1.0)
    val = train_val.val
    views = [val.images, val.images[:, ::-1, ::-1]]
    probabilities = np.mean([loaded.model.predict(view.astype(np.float32), verbose=0) for view in views], axis=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (val.labels, probabilities.argmax(axis=1)), 1)
    assert confusion.tolist() == result["confusion"]
    assert result["accuracy"] == np.trace(confusion) / 6
    assert {v.dtype for v in loaded.model.weights} <= {"float32", "int64", "uint32"}
    with np.load(out / "val.npz") as file:
        np.testing.assert_allclose(file["probabilities"], probabilities, atol=1e-5)
        np.testing.assert_array_equal(file["labels"], val.labels)


def test_transforms_that_swap_axes_need_square_images(tmp_path):
    for number, image in enumerate(draw_images(6, classes=2, side=32)):
        path = tmp_path / "leaves" / f"Species{number % 2 + 1}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:24]).save(path)
    recipe = change(shrunk(Recipe(data=Data(validation_split=0.5))), tta_transforms=("none", "left"))
    with pytest.raises(UserError, match="left needs square images.*24×32.*--set"):
        train(recipe, "turned", Inputs(tmp_path / "leaves", "none"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_finished_run_is_refused_and_not_changed(whole_run, class_folder):
    recipe, out, _ = whole_run
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match="finished run"):
        train(recipe, "tiny", Inputs(class_folder, "none"), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_run_is_continued_at_its_very_end(whole_run, almost_finished, class_folder, capsys):
    result = train(whole_run[0], "tiny", Inputs(class_folder, "none"), almost_finished)
    assert "continuing" in capsys.readouterr().out
    assert result["confusion"] == whole_run[2]["confusion"]
    assert {path.name for path in almost_finished.iterdir()} == FILES


def test_run_whose_record_lacks_newer_fields_is_continued(whole_run, almost_finished, class_folder, capsys):
    record = json.loads((almost_finished / "run.json").read_text("utf-8"))
    for section, field in (("finetune", "init_from"), ("finetune", "swa_epochs"), ("prediction", "tta_threshold")):
        del record["recipe"][section][field]
    (almost_finished / "run.json").write_text(json.dumps(record), "utf-8")
    result = train(whole_run[0], "tiny", Inputs(class_folder, "none"), almost_finished)
    assert result["confusion"] == whole_run[2]["confusion"]
    assert "continuing" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["recipe", "--backbone-weights", "--data"])
def test_folder_of_another_run_is_refused(whole_run, almost_finished, class_folder, tmp_path, monkeypatch, other):
    monkeypatch.setattr(planned, "PRETRAINED", (tiny,))  # the tiny backbone's weights are then part of the record
    recipe, weights, data = whole_run[0], "none", class_folder
    if other == "recipe":
        recipe = change(recipe, learning_rate=2e-2)
    elif other == "--backbone-weights":
        weights = "imagenet"
    else:
        data = tmp_path / "others"
        draw_folder(data, 8, classes=3, seed=1, side=32)
    with pytest.raises(UserError, match=f"unfinished run with another {other}"):
        train(recipe, "tiny", Inputs(data, weights), almost_finished)


def test_run_of_another_backend_is_refused(whole_run, almost_finished, class_folder):
    record = json.loads((almost_finished / "run.json").read_text("utf-8"))
    record["versions"]["jax"] = record["versions"].pop("tensorflow")
    (almost_finished / "run.json").write_text(json.dumps(record), "utf-8")
    with pytest.raises(UserError, match="jax backend.*--backend jax, or another --out"):
        train(whole_run[0], "tiny", Inputs(class_folder, "none"), almost_finished)


def test_folder_with_other_files_is_refused(whole_run, class_folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="has other files"):
        train(whole_run[0], "tiny", Inputs(class_folder, "none"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def start(recipe, data, out, monkeypatch):
    """Starts a run, up to its fine-tuning."""

    def reached(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "finetune", reached)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, "tiny", Inputs(data, "none"), out)


@pytest.mark.parametrize("fault", ["class_repeats", "backbone_weights"])
def test_failed_start_does_not_block_its_folder(whole_run, class_folder, tmp_path, monkeypatch, fault):
    recipe, weights = whole_run[0], "none"
    if fault == "class_repeats":
        recipe = change(recipe, class_repeats={"Oak": 2})
    else:
        recipe = change(recipe, backbone=backbones.inception_v3)
        weights = str(tmp_path / "missing.weights.h5")
    with pytest.raises(UserError, match="Oak|missing"):
        train(recipe, "tiny", Inputs(class_folder, weights), tmp_path / "out")
    start(whole_run[0], class_folder, tmp_path / "out", monkeypatch)


def test_lock_file_of_a_killed_process_does_not_block_its_folder(whole_run, class_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("4194304")
    recipe = change(whole_run[0], resolution_schedule=((1, 48),), warmup_epochs=0.0)
    recipe = replace(recipe, head=replace(recipe.head, epochs=1))
    assert train(recipe, "tiny", Inputs(class_folder, "none"), tmp_path / "out")["epochs"] == 1


def test_only_a_finished_run_is_loaded(almost_finished, tmp_path):
    with pytest.raises(UserError, match="no run"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="not finished"):
        load_run(almost_finished)


def test_weights_that_do_not_fit_are_named(whole_run, tmp_path):
    out = shutil.copytree(whole_run[1], tmp_path / "run")
    (out / "quasi_svm.weights.h5").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"quasi_svm\.weights\.h5") as error:
        load_run(out)
    assert "\n" not in str(error.value)


def test_run_may_hold_nothing_out(class_folder, tmp_path):
    recipe = shrunk(Recipe(data=Data(validation_split=0.0), finetune=Finetune(warmup_epochs=0.0)))
    recipe = change(recipe, resolution_schedule=((1, 75),))
    result = train(recipe, "tiny", Inputs(class_folder, "none"), tmp_path / "out")
    assert result["images"] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES - {"confusion.png", "val.npz"}
    assert "val_loss" not in read_history(tmp_path / "out" / "history.csv")[0]


def test_curves_of_a_history_with_validation_of_some_epochs(tmp_path, monkeypatch):
    """A fine-tuning on all images can start from one with a validation part."""
    drawn = {}

    def keep_lines(figure, path):
        drawn.update({axis.get_title(): axis.lines for axis in figure.axes})

    monkeypatch.setattr(plots, "save_figure", keep_lines)
    row = {"loss": 1.0, "accuracy": 0.5}
    history = [{"epoch": 1, **row, "val_loss": 2.0, "val_accuracy": 0.25}, {"epoch": 2, **row}]
    plots.plot_curves(history, tmp_path / "curves.png")
    lines = [line.get_xydata().tolist() for line in drawn["loss"]]
    assert lines == [[[1, 1.0], [2, 1.0]], [[1, 2.0]]]
