"""Training: the same weights whether interrupted or not, faults that stop it, and everything about a run in one folder."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import shrunk, tiny
from PIL import Image
from scipy.spatial.distance import pdist

from competition.drawings import draw_folder, draw_images
from training import architectures, evaluate, fit, run
from training.architectures import preprocessing, softmax_head, whole_network
from training.augment import Augmentation
from training.averaging import add_to_mean
from training.data import load_folder, split
from training.errors import UserError
from training.features import extract
from training.fit import finetune, fit_head, make_backbone, median_distance, read_history, write_history
from training.recipe import Recipe
from training.thaw import Edges

STAYS = {  # every file of a run that the documentation names, and the two it needs to go on
    *(
        "recipe.json",
        "history.csv",
        "head_history.csv",
        "best.weights.h5",
        "features.npz",
        "held.npz",
        "quasi_svm.weights.h5",
        "metrics.json",
    ),
    *("curves.png", "head_curves.png", "confusion.png", "checkpoint.npz", ".lock"),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Three classes of eight drawn leaves each, 32×32."""
    folder = tmp_path_factory.mktemp("fit") / "leaves"
    draw_folder(folder, 8, classes=3, side=32)
    return folder


@pytest.fixture(scope="module")
def parts(drawn):
    """(training images, validation images)."""
    images = load_folder(drawn)
    return tuple(images.rows(rows) for rows in split(images.labels, 0.25, 0))


# Two epochs at one size and one at another, so that an interruption can fall within a phase, between two and behind all.
PHASED = replace(shrunk(Recipe(validation=0.25, learning_rate=3e-3, warmup=0.5, label_smoothing=0.1)), phases=((2, 75), (1, 80)))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A file of weights to start from."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("start") / "start.weights.h5"
    tiny("none").save_weights(path)
    return str(path)


@pytest.fixture(scope="module")
def straight(parts, start, tmp_path_factory):
    """The folder of three epochs without interruption."""
    out = tmp_path_factory.mktemp("straight")
    finetune(PHASED, *parts, start, out, out / "features")
    return out


def arrays(out):
    with np.load(out / "checkpoint.npz") as file:
        return {name: file[name] for name in file.files if name != "history"}


def interrupt(monkeypatch, after, recipe, parts, start, out):
    """Kills the fine-tuning between an epoch's checkpoint and whatever follows it."""
    save = fit._write_checkpoint

    def save_and_stop(path, *state):
        save(path, *state)
        history = state[-1]
        if len(history) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_write_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(recipe, *parts, start, out, out.parent / "features")


def best(out, recipe=PHASED, classes=3):
    """The network that a fine-tuning has kept."""
    backbone = tiny("none")
    network = whole_network(backbone, softmax_head(recipe, 8, classes), (32, 32), recipe.size)
    network.load_weights(out / "best.weights.h5")
    return network


def compiled(recipe, parts, steps):
    backbone = make_backbone(recipe, "none")
    return fit._compiled(recipe, backbone, softmax_head(recipe, 8, 3), parts[0], 75, steps)


def without_time(path):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_history(path)]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_run_ends_with_the_same_weights(parts, start, straight, tmp_path, monkeypatch, after):
    interrupt(monkeypatch, after, PHASED, parts, start, tmp_path)
    finetune(PHASED, *parts, start, tmp_path, tmp_path.parent / "features")
    expected, found = arrays(straight), arrays(tmp_path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name].astype(float), array.astype(float), atol=1e-5, err_msg=name)
    one, other = (best(folder) for folder in (straight, tmp_path))
    assert len(one.get_weights()) == len(tiny("none").get_weights()) + 2
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    rows, again = without_time(straight / "history.csv"), without_time(tmp_path / "history.csv")
    assert [row["epoch"] for row in again] == [1, 2, 3]
    for row, other_row in zip(rows, again, strict=True):
        assert row == pytest.approx(other_row, abs=1e-4)


AVERAGED = replace(PHASED, keep="last", averaged_epochs=2)


def test_the_mean_of_the_last_epochs_is_kept(parts, start, tmp_path, monkeypatch):
    """The mean of the second and the third epoch, wherever the run was interrupted, and the third is what it goes on from."""
    seen = []

    def record(mean, weights, count):
        seen.append([np.array(w) for w in weights])
        return add_to_mean(mean, weights, count)

    monkeypatch.setattr(fit, "add_to_mean", record)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for out in (whole, parted):
        out.mkdir()
    finetune(AVERAGED, *parts, start, whole, tmp_path / "features")
    assert len(seen) == 2
    for after in (1, 2):
        interrupt(monkeypatch, after, AVERAGED, parts, start, parted)
    finetune(AVERAGED, *parts, start, parted, tmp_path / "features")
    kept, again = best(whole), best(parted)
    moved = 0
    for variable, second, third, other in zip(kept.weights, seen[0], seen[1], again.weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), other.numpy(), atol=1e-5)
        if "moving" not in variable.path:
            np.testing.assert_allclose(variable.numpy(), (second + third) / 2, atol=1e-6)
            moved += np.abs(second - third).max()
    assert moved > 1e-3
    live = arrays(whole)
    for number, third in enumerate(seen[1][:3]):
        assert any(array.shape == third.shape and np.array_equal(array, third) for array in live.values()), number


def test_training_changes_the_weights_and_the_history_tells_of_each_epoch(start, straight):
    history = read_history(straight / "history.csv")
    assert [row["size"] for row in history] == [75, 75, 80]
    assert [row["images"] for row in history] == [24, 24, 24]  # 18, and 6 that fill the last batch up
    for row in history:
        assert row.keys() == set(fit.COLUMNS)
        assert 0 <= row["accuracy"] <= 1
    before, after = tiny(start), best(straight).get_layer("backbone")
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(before.get_weights(), after.get_weights(), strict=True))


def test_the_best_epoch_is_kept(parts, tmp_path, monkeypatch):
    losses, kept = iter([0.5, 0.2, 0.9]), []
    one_epoch = fit._one_epoch

    def scored(recipe, network, *args):
        row = {**one_epoch(recipe, network, *args), "val_loss": next(losses)}
        kept.append(network.get_weights())
        return row

    monkeypatch.setattr(fit, "_one_epoch", scored)
    finetune(replace(PHASED, phases=((3, 75),)), *parts, "none", tmp_path, tmp_path.parent / "features")
    found = best(tmp_path).get_weights()
    same = [all(np.array_equal(a, b) for a, b in zip(found, weights, strict=True)) for weights in kept]
    assert same == [False, True, False]


def test_frozen_layers_stay_as_they_came(parts, start, tmp_path):
    recipe = replace(PHASED, thaw=Edges(0, 4), batch_norm=False, phases=((1, 75),))  # leaves the second convolution
    finetune(recipe, *parts, start, tmp_path, tmp_path.parent / "features")
    before, after = tiny(start), best(tmp_path).get_layer("backbone")
    changed = []
    for number, layers in enumerate(zip(before.layers, after.layers, strict=True)):
        one, other = (layer.get_weights() for layer in layers)
        if any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True)):
            changed.append(number)
    assert changed == [4]
    assert isinstance(after.layers[4], keras.layers.Conv2D)


def test_random_weights_follow_from_the_seed():
    one, same, other = (make_backbone(replace(PHASED, seed=seed), "none").get_weights() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0], same[0])
    assert np.abs(one[0] - other[0]).max() > 0


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_there(parts, start, tmp_path, monkeypatch):
    recipe = replace(PHASED, phases=((2, 75),))
    interrupt(monkeypatch, 1, recipe, parts, start, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"checkpoint.npz", "best.weights.h5"} <= before.keys()
    with pytest.raises(UserError, match="no longer a number in epoch 2.*learning_rate=") as error:
        finetune(replace(recipe, learning_rate=1e30), *parts, start, tmp_path, tmp_path.parent / "features")
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    finetune(recipe, *parts, start, tmp_path, tmp_path.parent / "features")
    assert len(read_history(tmp_path / "history.csv")) == 2


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped"])
def test_a_damaged_checkpoint_is_named(parts, straight, tmp_path, damage):
    data = bytearray((straight / "checkpoint.npz").read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 255
    data = {"empty": b"", "text": b"not a checkpoint", "cut": data[: len(data) // 2], "flipped": data}[damage]
    (tmp_path / "checkpoint.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"checkpoint\.npz is damaged") as error:
        finetune(PHASED, *parts, "none", tmp_path, tmp_path.parent / "features")
    assert "\n" not in str(error.value)


def test_half_precision_scales_its_loss_and_keeps_whole_weights(parts):
    recipe = replace(PHASED, precision="mixed_float16")
    backbone = make_backbone(recipe, "none")
    assert keras.config.dtype_policy().name == "float32"
    assert backbone.layers[1].compute_dtype == "float16"
    assert {v.dtype for v in backbone.weights} == {"float32"}
    # Without it, gradients below 6e-8 would be zero in half precision.
    network = compiled(recipe, parts, 3)
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0, 2.0])
def test_the_learning_rate_rises_and_falls_within_the_run(parts, warmup):
    recipe = replace(PHASED, phases=((2, 75),), warmup=warmup)
    optimizer = compiled(recipe, parts, 10).optimizer
    rates = []
    for step in range(21):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    peak = round(warmup * 10)
    assert rates[peak] == pytest.approx(recipe.learning_rate)
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert peak == 20 or rates[-1] == pytest.approx(0, abs=1e-9)


def test_label_smoothing_is_the_formula(parts):
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    network = compiled(replace(PHASED, label_smoothing=0.3), parts, 3)
    loss = network.loss(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float32), probabilities)
    targets = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    assert float(loss) == pytest.approx(-(targets * np.log(probabilities)).sum(axis=1).mean(), rel=1e-5)


def test_curves_of_a_history_only_part_of_which_was_validated(tmp_path, monkeypatch):
    """A fine-tuning on everything that starts from one with a part held out."""
    drawn = {}
    monkeypatch.setattr(evaluate, "save_figure", lambda figure, path: drawn.update({axis.get_title(): axis.lines for axis in figure.axes}))
    row = {"loss": 1.0, "accuracy": 0.5}
    history = [{"epoch": 1, **row, "val_loss": 2.0, "val_accuracy": 0.25}, {"epoch": 2, **row}]
    evaluate.plot_curves(history, tmp_path / "curves.png")
    lines = [line.get_xydata().tolist() for line in drawn["loss"]]
    assert lines == [[[1, 1.0], [2, 1.0]], [[1, 2.0]]]


def test_history_is_read_as_it_was_written(tmp_path):
    rows = [{"epoch": 1, "loss": 0.1 + 0.2, "accuracy": 0.5, "seconds": 1.5}, {"epoch": 2, "loss": 1e-9, "accuracy": 1.0, "seconds": 2.0}]
    write_history(tmp_path / "history.csv", rows)
    assert read_history(tmp_path / "history.csv") == rows


# A whole run


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    """(recipe, folder, metrics) of a run."""
    recipe = replace(shrunk(Recipe(validation=0.25, learning_rate=1e-2, warmup=0.5)), repeats={"Species1": 3}, test_flips=("none", "both"))
    out = tmp_path_factory.mktemp("runs") / "deeper" / "first"
    return recipe, out, run.train(recipe, "tiny", drawn, "none", out)


@pytest.fixture
def unfinished(finished, tmp_path):
    """A copy of the run as it is a moment before its end."""
    out = shutil.copytree(finished[1], tmp_path / "unfinished")
    (out / "metrics.json").unlink()
    return out


def test_a_run_leaves_everything_about_it(finished, drawn):
    recipe, out, result = finished
    assert {path.name for path in out.iterdir()} == STAYS
    assert {path.name for path in out.parent.iterdir()} == {"first", ".features"}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in out.glob("*.png"))
    record = json.loads((out / "recipe.json").read_text("utf-8"))
    assert record["name"] == "tiny"
    assert record["recipe"] == recipe.to_json()
    assert record["classes"] == ["Species1", "Species2", "Species3"]
    assert record["image_shape"] == [32, 32]
    assert record["images"] == 24
    assert record["versions"]["keras"] == keras.__version__
    assert [row["size"] for row in read_history(out / "history.csv")] == [75, 80]
    assert [row["epoch"] for row in read_history(out / "head_history.csv")] == [1, 2, 3, 4]
    assert json.loads((out / "metrics.json").read_text("utf-8")) == result
    assert result["epochs"] == 2
    assert result["training_images"] == 18
    assert result["trainable_parameters"] == sum(np.prod(v.shape) for v in best(out, recipe).trainable_variables)


def test_validation_is_not_repeated(finished):
    result = finished[2]
    assert result["images"] == 6
    assert [c["images"] for c in result["classes"].values()] == [2, 2, 2]


def test_the_loaded_network_is_the_one_that_was_measured(finished, parts, monkeypatch):
    monkeypatch.setattr(architectures, "tiny", tiny, raising=False)
    _, out, result = finished
    network, names, flips, sure = run.load_network(out)
    assert names == ("Species1", "Species2", "Species3")
    assert flips == ("none", "both") and sure == 1.0
    held = parts[1]
    views = [held.images, held.images[:, ::-1, ::-1]]
    probabilities = np.mean([network.predict(view.astype(np.float32), verbose=0) for view in views], axis=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (held.labels, probabilities.argmax(axis=1)), 1)
    assert confusion.tolist() == result["confusion"]
    assert result["accuracy"] == np.trace(confusion) / 6
    assert {v.dtype for v in network.weights} <= {"float32", "int64", "uint32"}


def test_only_a_doubt_is_looked_at_again():
    """As the submission does it: the first view alone where it is sure, the mean of all views elsewhere."""

    class Network:
        asked = []

        def predict(self, batches, **_):
            images = np.concatenate([batch for (batch,) in batches])
            self.asked.append(len(images))
            share = images[:, 0, 0, 0] / 10
            return np.stack([share, 1 - share], axis=1)

    images = np.zeros((4, 2, 2, 1))
    images[:, 0, 0, 0], images[:, 1, 0, 0] = [9, 8, 6, 1], [0, 2, 4, 6]  # what the first view, and its mirror image, show
    network = Network()
    found = run.predict(network, images, ("none", "vertical"), 0.8)
    np.testing.assert_allclose(found[:, 0], [0.9, 0.5, 0.5, 0.1])
    assert network.asked == [4, 2]
    np.testing.assert_allclose(run.predict(network, images, ("none", "vertical"))[:, 0], [0.45, 0.5, 0.5, 0.35])


def test_turned_views_need_square_images(tmp_path):
    for number, image in enumerate(draw_images(6, classes=2, side=32)):
        path = tmp_path / "leaves" / f"Species{number % 2 + 1}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:24]).save(path)
    recipe = replace(shrunk(Recipe(validation=0.5)), test_flips=("none", "left"))
    with pytest.raises(UserError, match="left needs square images, and these are 24×32; give --set"):
        run.train(recipe, "turned", tmp_path / "leaves", "none", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_refused(finished, drawn):
    recipe, out, _ = finished
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match="finished run"):
        run.train(recipe, "tiny", drawn, "none", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_run_of_before_a_field_was_thought_of_goes_on(finished, unfinished, drawn, capsys):
    record = json.loads((unfinished / "recipe.json").read_text("utf-8"))
    for field in ("start", "averaged_epochs", "test_sure"):
        del record["recipe"][field]
    (unfinished / "recipe.json").write_text(json.dumps(record), "utf-8")
    assert run.train(finished[0], "tiny", drawn, "none", unfinished)["confusion"] == finished[2]["confusion"]
    assert "going on" in capsys.readouterr().out


def test_a_run_goes_on_at_its_very_end(finished, unfinished, drawn, capsys):
    result = run.train(finished[0], "tiny", drawn, "none", unfinished)
    assert "going on" in capsys.readouterr().out
    assert result["confusion"] == finished[2]["confusion"]
    assert {path.name for path in unfinished.iterdir()} == STAYS


@pytest.mark.parametrize("other", ["recipe", "backbone_weights", "data"])
def test_another_run_s_folder_is_refused(finished, unfinished, drawn, tmp_path, monkeypatch, other):
    monkeypatch.setattr(run, "PRETRAINED", (tiny,))  # else no weights are read, so none are other ones
    recipe, weights, data = finished[0], "none", drawn
    if other == "recipe":
        recipe = replace(recipe, learning_rate=2e-2)
    elif other == "backbone_weights":
        weights = "imagenet"
    else:
        data = tmp_path / "others"
        draw_folder(data, 8, classes=3, seed=1, side=32)
    with pytest.raises(UserError, match=f"unfinished run with another {other}"):
        run.train(recipe, "tiny", data, weights, unfinished)


def test_another_backend_s_run_is_refused(finished, unfinished, drawn):
    record = json.loads((unfinished / "recipe.json").read_text("utf-8"))
    record["versions"]["jax"] = record["versions"].pop("tensorflow")
    (unfinished / "recipe.json").write_text(json.dumps(record), "utf-8")
    with pytest.raises(UserError, match=r"unfinished run under the backend jax; give --backend jax, or another --out"):
        run.train(finished[0], "tiny", drawn, "none", unfinished)


def test_a_folder_of_something_else_is_refused(finished, drawn, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        run.train(finished[0], "tiny", drawn, "none", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("fault", ["repeats", "backbone_weights"])
def test_a_start_that_failed_does_not_block_its_folder(finished, drawn, tmp_path, monkeypatch, fault):
    recipe, weights = finished[0], "none"
    if fault == "repeats":
        recipe = replace(recipe, repeats={"Oak": 2})
    else:
        recipe, weights = replace(recipe, backbone=architectures.inception_v3), str(tmp_path / "missing.weights.h5")
    with pytest.raises(UserError, match="Oak|missing"):
        run.train(recipe, "tiny", drawn, weights, tmp_path / "out")

    def reached(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "finetune", reached)
    with pytest.raises(KeyboardInterrupt):
        run.train(finished[0], "tiny", drawn, "none", tmp_path / "out")


def test_only_a_finished_run_is_loaded(unfinished, tmp_path):
    with pytest.raises(UserError, match="no run"):
        run.load_network(tmp_path)
    with pytest.raises(UserError, match="not finished"):
        run.load_network(unfinished)


def test_weights_that_do_not_fit_are_named(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "tiny", tiny, raising=False)
    out = shutil.copytree(finished[1], tmp_path / "run")
    (out / "quasi_svm.weights.h5").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"quasi_svm\.weights\.h5") as error:
        run.load_network(out)
    assert "\n" not in str(error.value)


def test_a_run_may_hold_nothing_out(drawn, tmp_path):
    recipe = replace(shrunk(Recipe(validation=0.0)), phases=((1, 75),), warmup=0.0)
    result = run.train(recipe, "tiny", drawn, "none", tmp_path / "out")
    assert result["images"] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == STAYS - {"confusion.png", "held.npz"}
    assert "val_loss" not in read_history(tmp_path / "out" / "history.csv")[0]


# Features and the head


def test_features_are_the_backbone_s_and_do_not_depend_on_the_batch():
    images, backbone = draw_images(7, side=32), tiny("none")
    found = extract(backbone, images, 75, batch=3)
    assert found.shape == (1, 7, 8)
    np.testing.assert_allclose(found[0], backbone.predict(np.asarray(preprocessing(75)(images)), verbose=0), atol=1e-5)
    np.testing.assert_allclose(
        extract(backbone, images, 75, Augmentation(), 2, batch=3), extract(backbone, images, 75, Augmentation(), 2), atol=1e-4
    )


def test_features_of_each_view_follow_from_the_seed():
    images, backbone = draw_images(5, side=32), tiny("none")
    views = extract(backbone, images, 75, Augmentation(), 3, seed=1)
    assert views.shape == (3, 5, 8)
    np.testing.assert_array_equal(views, extract(backbone, images, 75, Augmentation(), 3, seed=1))
    assert len({view.tobytes() for view in views}) == 3
    assert np.abs(views - extract(backbone, images, 75, Augmentation(), 3, seed=2)).max() > 1e-3


def rings(count, seed):
    """Points on two circles about each other, which no straight line parts: features [count, 2], labels."""
    rng = np.random.default_rng(seed)
    labels, angle = np.arange(count) % 2, rng.uniform(0, 2 * np.pi, count)
    radius = 1.0 + 2.0 * labels + rng.normal(0, 0.15, count)
    return np.stack([radius * np.cos(angle) + 50, 1e-3 * radius * np.sin(angle)], axis=1).astype(np.float32), labels


def test_the_head_learns_what_no_straight_line_parts(tmp_path):
    features, labels = rings(300, 0)
    held, held_labels = rings(100, 1)
    recipe = Recipe(head_epochs=30, head_features=256, head_learning_rate=1e-2, head_batch=64, head_scale=0.5)
    head = fit_head(recipe, np.stack([features, rings(300, 2)[0]]), labels, held, held_labels, ("in", "out"), tmp_path)
    probabilities = head.predict(held, verbose=0)
    assert (probabilities.argmax(axis=1) == held_labels).mean() > 0.97
    history = read_history(tmp_path / "head_history.csv")
    assert len(history) == 30
    assert head.evaluate(held, np.eye(2)[held_labels], verbose=0)[0] == pytest.approx(min(row["val_loss"] for row in history), abs=1e-4)


def test_a_common_scale_leaves_a_quiet_feature_quiet(tmp_path):
    features, labels = rings(300, 0)
    quiet = np.random.default_rng(0).normal(0, 1e-3, (300, 50))  # tells nothing, and hardly varies
    features = np.concatenate([features * [1, 1e3], quiet], axis=1, dtype=np.float32)
    recipe = Recipe(head_epochs=30, head_features=256, head_learning_rate=1e-2, head_batch=64, head_scale=0.5, keep="last")

    def right(common):
        one = replace(recipe, head_common_scale=common)
        half = features[None, :200], labels[:200], features[200:], labels[200:]
        head = fit_head(one, *half, ("in", "out"), tmp_path)
        return (head.predict(half[2], verbose=0).argmax(axis=1) == half[3]).mean(), head.get_layer("standardise")

    (common, scaled), (each, _) = right(True), right(False)
    assert common > 0.97 > 0.8 > each
    assert float(scaled.mean.numpy().item()) == pytest.approx(features[:200].mean(), abs=1e-5)
    assert float(scaled.variance.numpy().item()) == pytest.approx(features[:200].var(), rel=1e-4)


def test_adjusted_logits_prefer_a_rare_class_by_how_rare_it_is(tmp_path):
    features, labels = rings(300, 0)
    features, labels = (array[(labels == 1) | (np.arange(300) < 60)] for array in (features, labels))  # 30 of one, 150 of the other
    recipe = Recipe(head_epochs=3, head_features=64, keep="last")
    heads = [
        fit_head(replace(recipe, head_logit_adjustment=tau), features[None], labels, features[:0], labels[:0], ("in", "out"), tmp_path)
        for tau in (0.0, 1.0, 2.0)
    ]
    odds = [np.log(p[:, 0] / p[:, 1]) for p in (head.predict(features, verbose=0) for head in heads)]
    np.testing.assert_allclose(odds[1] - odds[0], np.log(150 / 30), atol=1e-3)
    np.testing.assert_allclose(odds[2] - odds[0], 2 * np.log(150 / 30), atol=1e-3)
    kernels = [head.get_layer("softmax").get_weights()[0] for head in heads]
    assert all(np.array_equal(kernel, kernels[0]) for kernel in kernels)


def test_the_head_repeats_and_depends_on_the_seed(tmp_path):
    features, labels = rings(40, 0)
    recipe = Recipe(head_epochs=2, head_features=32)

    def answers(seed):
        head = fit_head(replace(recipe, seed=seed), features[None], labels, features[:0], labels[:0], ("in", "out"), tmp_path)
        return head.predict(features, verbose=0)

    np.testing.assert_allclose(answers(1), answers(1), atol=1e-6)
    assert np.abs(answers(1) - answers(2)).max() > 1e-3


def test_the_head_s_loss_stops_at_what_is_no_number(tmp_path):
    features, labels = rings(40, 0)
    with pytest.raises(UserError, match="head_learning_rate="):
        fit_head(Recipe(head_epochs=5, head_learning_rate=1e38), features[None], labels, features[:0], labels[:0], ("in", "out"), tmp_path)


def test_a_backbone_whose_features_are_all_the_same_is_a_fault_of_the_user(tmp_path):
    with pytest.raises(UserError, match="features"):
        fit_head(
            Recipe(head_epochs=1),
            np.ones((1, 10, 4), np.float32),
            np.arange(10) % 2,
            np.zeros((0, 4)),
            np.zeros(0, int),
            ("a", "b"),
            tmp_path,
        )


def test_median_distance_is_that_of_different_rows():
    features = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    assert median_distance(features, 0) == pytest.approx(np.median(pdist(features)), rel=0.02)
    assert median_distance(features, 0) == median_distance(features, 0)
    # With two rows there is one pair; a row paired with itself would pull the median to 0.
    assert median_distance(np.array([[0.0, 0.0], [3.0, 4.0]]), 0) == 5.0
