"""`python -m training auto`: a quick model, and a fine-tuning that is kept only if it is better."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import python, tiny_mixed
from PIL import Image

from common.errors import UserError
from common.files import digest
from common.folders import list_classes
from common.images import Images, cost_of_reading, load_folder
from common.machine import free_memory
from competition.synthetic import draw_folder
from training.__main__ import main
from training.auto import choices, heldout, search, trials
from training.auto.plan import Plan
from training.auto.search import auto
from training.config.override import change
from training.config.record import from_json
from training.data.groups import with_groups
from training.data.split import split_rows
from training.inputs import Inputs
from training.run_folder import read_metrics, read_record
from training.trained import load_run

pytestmark = pytest.mark.integration


def test_the_quick_model_is_ready_to_build(auto_data, tmp_path, capsys):
    out = tmp_path / "out"
    accuracy = auto(Inputs(auto_data, "none"), out, minutes=0.01)
    assert 0 <= accuracy <= 1
    plan = json.loads((out / "plan.json").read_text("utf-8"))
    assert list(plan["steps"]) == ["quick"]
    assert plan["steps"]["quick"]["held_out_accuracy"] == accuracy
    record = read_record(out / "best")
    assert from_json(plan["steps"]["quick"]["recipe"]) == record.recipe
    assert record.recipe.head.kind == "linear"
    assert record.recipe.data.class_repeats == {"Species2": 2}
    assert record.recipe.prediction.tta_transforms == ("none", "horizontal")
    assert saved_accuracy(out) == accuracy and (out / "confusion.png").is_file()
    trained = load_run(out)
    assert trained.names == ("Species1", "Species2", "Species3")
    assert trained.samples is not None
    assert set(trained.trained_on) == set(load_folder(auto_data).file_hashes)  # all images, also the held-out ones
    shown = capsys.readouterr().out
    for text in (
        "29 color images of 3 classes, 5 to 12",
        "images per second",
        "quick model",
        "no fine-tuning",
        "best:",
    ):
        assert text in shown


def test_one_group_of_similar_images_of_each_class_is_held_out(auto_data, tmp_path, monkeypatch):
    parts = []
    probabilities = trials.held_out_probabilities
    monkeypatch.setattr(trials, "held_out_probabilities", lambda *rest: parts.append(rest[3:]) or probabilities(*rest))
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=0.01)
    assert (tmp_path / "out" / "groups.csv").is_file()
    assert parts
    for images, (train_rows, val_rows) in parts:
        assert not set(images.groups[train_rows]) & set(images.groups[val_rows])
        assert set(images.labels[val_rows]) == {0, 1, 2}


def test_images_of_a_series_are_in_one_group():
    rng = np.random.default_rng(0)
    series = np.repeat(rng.normal(0, 5, (16, 20)), 4, axis=0)
    labels = np.repeat([0, 1], 32)
    groups, split = heldout.similar_groups(labels, (series + rng.normal(0, 0.1, series.shape)).astype(np.float32))
    assert split == 0
    assert all(len(set(groups[start : start + 4])) == 1 for start in range(0, 64, 4))
    assert len(set(groups[:32])) > 4
    assert not set(groups[:32]) & set(groups[32:])


def test_only_a_series_that_is_too_large_is_split():
    """14 series of 5 images and one of 30 in each class: no group has more than a quarter of the 100 images."""
    rng = np.random.default_rng(0)
    sizes = [5] * 14 + [30]
    series = np.concatenate([np.repeat(rng.normal(0, 5, (15, 20)), sizes, axis=0) for _ in range(2)])
    labels = np.repeat([0, 1], 100)
    groups, split = heldout.similar_groups(labels, (series + rng.normal(0, 0.1, series.shape)).astype(np.float32))
    assert split == 2
    starts = [100 * label + 5 * one for label in range(2) for one in range(14)]
    assert all(len(set(groups[start : start + 5])) == 1 for start in starts)
    assert np.bincount(groups).max() <= 25


def test_a_series_that_was_split_is_said(auto_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trials, "similar_groups", lambda labels, features: (np.arange(len(labels)), 2))
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=0.01)
    assert "2 groups of similar images are larger than a quarter of their class" in capsys.readouterr().out


@pytest.mark.parametrize("images", [2, 3, 5, 7, 8, 12])
def test_copies_of_one_photograph_are_one_group_in_classes_of_any_size(images):
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (20 * images, 64)).astype(np.float32)
    labels = np.repeat(np.arange(20), images)
    for first in range(0, len(labels), images):
        features[first + 1] = features[first] + rng.normal(0, 0.01, 64)
    groups, _ = heldout.similar_groups(labels, features)
    together = [groups[first] == groups[first + 1] for first in range(0, len(labels), images)]
    assert all(together) == (images > 2)  # a class of two images keeps two groups
    assert all(len(set(groups[labels == label])) > 1 for label in range(20))


def test_a_share_is_held_out_of_classes_with_several_groups():
    def images(labels, group_names):
        pixels = np.zeros((len(labels), 1, 1, 3), np.uint8)
        return Images(pixels, np.array(labels), ("a", "b", "c"), ("",) * len(labels), group_names=tuple(group_names))

    def names(count):
        return [f"{number}" for number in range(count)]

    assert heldout.held_out_share(images([0] * 8 + [1] * 8 + [2] * 8, names(24))) == 1 / 8
    assert heldout.held_out_share(images([0] * 500 + [1] * 500 + [2], names(1001))) == 1 / 8
    assert heldout.held_out_share(images([0] * 500 + [1] + [2], names(502))) == 0  # of one class, it tells nothing
    patients = [f"{row % 20}" for row in range(40)] + ["0", "1", "2"]
    assert heldout.held_out_share(images([0] * 20 + [1] * 20 + [2] * 3, patients)) == pytest.approx(1 / 3)
    patients[-2:] = ["0", "0"]  # of the third class there is one patient, who is trained on
    assert heldout.held_out_share(images([0] * 20 + [1] * 20 + [2] * 3, patients)) == 1 / 8
    assert heldout.held_out_share(images([0] * 3 + [1] * 3, ["a", "a", "b", "b", "b", "b"])) == 0


def test_groups_of_the_user_are_used(auto_data, tmp_path):
    table = tmp_path / "mine.csv"
    lines = [f"{path.relative_to(auto_data).as_posix()},{path.stem[-1]}" for path in sorted(auto_data.rglob("*.jpg"))]
    table.write_text("\n".join(["path,group", *lines]) + "\n")
    auto(Inputs(auto_data, "none", groups=table), tmp_path / "out", minutes=0.01)
    assert not (tmp_path / "out" / "groups.csv").exists()
    assert read_record(tmp_path / "out" / "best").groups_sha256


def test_the_saved_recipe_repeats_the_quick_model(auto_data, tmp_path):
    from training.run import train

    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=0.01)
    record = read_record(tmp_path / "out" / "best")
    train(record.recipe, "again", Inputs(auto_data, "none"), tmp_path / "out" / "again")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    first, again = (load_run(tmp_path / "out" / name).model.predict(images, verbose=0) for name in ("best", "again"))
    np.testing.assert_allclose(first, again, atol=1e-4)


@pytest.mark.parametrize(
    ("affordable", "large", "schedule"),
    [
        (13.9, False, ((13, 192),)),
        (500.0, False, ((80, 192),)),
        (50.4, True, ((27, 192), (13, 256))),
        (500.0, True, ((53, 192), (27, 256))),
        (9.9, True, ((9, 192),)),
        (4.0, False, ((4, 192),)),
        (3.9, False, ((4, 128), (2, 192))),
        (3.9, True, ((4, 128), (2, 192))),
        (1.0, False, ((1, 128),)),
        (0.4, False, ((0, 128),)),
    ],
)
def test_larger_epochs_cost_as_much_as_they_have_more_pixels(monkeypatch, affordable, large, schedule):
    monkeypatch.setattr(choices, "INPUT_SIZE", 192)
    assert choices.stages(affordable, large) == schedule
    epochs = sum(count for count, _ in schedule)
    cost = sum(count * choices.relative_cost(size) for count, size in schedule)
    assert cost <= affordable or epochs == choices.MAX_EPOCHS


@pytest.mark.parametrize(
    ("batches", "epochs", "begins"), [(10, 4, True), (10, 3, False), (100, 3, True), (99, 3, False)]
)
def test_a_fine_tuning_needs_4_epochs_or_300_steps(tmp_path, monkeypatch, capsys, batches, epochs, begins):
    """There is time for so many epochs of so many batches."""
    base = choices.base_recipe({}, "float32")
    count = batches * choices.finetuning_recipe(base, ((1, 75),), False).finetune.batch_size
    images = Images(np.zeros((count, 1, 1, 3), np.uint8), np.zeros(count, int), ("a",), ("",) * count)
    found = SimpleNamespace(
        base=base, images=images, inputs=Inputs("leaves", "none"), rows=(np.arange(count), []), size=75, view_seconds=0
    )
    monkeypatch.setattr(search, "seconds_per_image", lambda *rest: 1.0)
    monkeypatch.setattr(choices, "stages", lambda affordable, large: ((int(affordable), 75),))
    planned = SimpleNamespace(plan=Plan(20, tmp_path), trials=found)
    schedule = search.Search._schedule(planned, epochs * (count + search.SAVE_SECONDS), False)
    assert schedule == (((epochs, 75),) if begins else ())
    refused = "no fine-tuning: at least 4 epochs or 300 steps are needed"
    assert (refused in capsys.readouterr().out) is not begins


@pytest.mark.parametrize(("count", "seen"), [(32, 32), (33, 64), (12, 32)])
def test_an_epoch_is_planned_with_whole_batches_and_a_checkpoint(tmp_path, monkeypatch, count, seen):
    """The pipeline fills up the last batch."""
    images = Images(np.zeros((count, 1, 1, 3), np.uint8), np.zeros(count, int), ("a",), ("",) * count)
    found = SimpleNamespace(
        base=choices.base_recipe({}, "float32"), images=images, inputs=Inputs("leaves", "none"), size=75, view_seconds=0
    )
    found.rows = np.arange(count), []
    affordable = []
    monkeypatch.setattr(search, "seconds_per_image", lambda *rest: 1.0)
    monkeypatch.setattr(choices, "stages", lambda epochs, large: affordable.append(epochs) or ((4, 75),))
    planned = SimpleNamespace(plan=Plan(20, tmp_path), trials=found)
    search.Search._schedule(planned, 10 * (seen + search.SAVE_SECONDS), False)
    assert affordable == [10]


def test_heads_that_cannot_be_trained_leave_the_softmax(tmp_path, monkeypatch, capsys):
    """For example because the fine-tuned backbone gives all images the same features."""

    def fail(*_):
        raise UserError("all training images have the same features; train the backbone with a lower rate")

    images = Images(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2), ("a", "b"), ("", ""))
    found = SimpleNamespace(images=images, best_finetuned_head=fail)
    network = SimpleNamespace(get_layer=lambda name: name)
    monkeypatch.setattr(search, "finetuned_model", lambda *rest: network)
    monkeypatch.setattr(search, "_held_out", lambda folder: None)
    planned = SimpleNamespace(plan=Plan(20, tmp_path), trials=found)
    assert search.Search._best_head(planned, choices.base_recipe({}, "float32")) is None
    said = capsys.readouterr().out
    assert "no other head on the fine-tuned backbone: all training images have the same features\n" in said


def with_accuracy(monkeypatch, accuracies):
    """Replaces the accuracy that a run of each name returns."""
    train = search.train

    def trained(recipe, name, *rest):
        result = train(recipe, name, *rest)
        return {**result, "accuracy": accuracies.get(name, result.get("accuracy"))}

    monkeypatch.setattr(search, "train", trained)


@pytest.mark.parametrize(
    ("lost", "won", "worse"),
    [(0, 0, False), (3, 0, False), (4, 0, True), (5, 2, False), (7, 2, True), (2, 7, False), (40, 40, False)],
)
def test_clearly_worse_is_more_than_chance(lost, won, worse):
    labels = np.zeros(100, int)
    before, after = np.zeros((100, 2)), np.zeros((100, 2))
    before[:, 0] = after[:, 0] = 0.5
    after[:lost, 1] = before[lost : lost + won, 1] = 0.9
    assert heldout.clearly_worse(after, before, labels) == worse


def test_with_few_held_out_images_any_difference_counts():
    """The test could not tell three mistakes of three from none."""
    labels = np.zeros(3, int)
    right, wrong = np.eye(2)[labels], np.eye(2)[1 - labels]
    assert heldout.clearly_worse(wrong, right, labels)
    assert not heldout.clearly_worse(right, right, labels) and not heldout.clearly_worse(right, wrong, labels)


def test_an_accuracy_of_zero_is_printed(tmp_path, capsys):
    (tmp_path / "quick").mkdir()
    plan = Plan(1, tmp_path)
    plan.keep("quick", choices.base_recipe({}, "float32"), 0.0)
    assert "quick: 0.0% on the held-out images; kept" in capsys.readouterr().out
    plan.keep("quick", choices.base_recipe({}, "float32"), None)
    assert "quick: kept" in capsys.readouterr().out


@pytest.mark.slow
def test_one_of_few_groups_is_held_out_whatever_the_share(auto_data, tmp_path, monkeypatch, one_epoch, recipes):
    """Four patients with images of each class."""
    table, files = tmp_path / "mine.csv", sorted(auto_data.rglob("*.jpg"))
    lines = [f"{path.relative_to(auto_data).as_posix()},{int(path.stem) % 4}" for path in files]
    table.write_text("\n".join(["path,group", *lines]) + "\n")
    monkeypatch.setattr(trials, "held_out_share", lambda images: 1 / 10)  # fewer patients than parts
    with pytest.raises(Reached):
        auto(Inputs(auto_data, "none", groups=table), tmp_path / "out", minutes=20)
    images = with_groups(load_folder(auto_data), table, auto_data)
    _, val = split_rows(recipes["auto-finetuned"].data, images)
    assert len({images.group_names[row] for row in val}) == 1


@pytest.mark.slow
def test_a_kept_fine_tuning_is_complete_but_for_its_checkpoint(auto_data, tmp_path, monkeypatch, one_epoch):
    with_accuracy(monkeypatch, {"auto-finetuned": 0.4})
    monkeypatch.setattr(trials, "accuracy", lambda probabilities, labels: 0.5)
    monkeypatch.setattr(search, "clearly_worse", lambda after, before, labels: False)
    assert auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20) == 0.4
    assert read_record(tmp_path / "out" / "best").recipe.head.kind == "softmax"
    assert read_metrics(tmp_path / "out" / "finetuned")["epochs"] == 1
    assert not (tmp_path / "out" / "best" / "checkpoint.npz").exists()
    trained, images = load_run(tmp_path / "out"), load_folder(auto_data)
    assert trained.names == ("Species1", "Species2", "Species3")
    with np.load(tmp_path / "out" / "val.npz") as file:
        held_out = images.rows(file["rows"])
    assert set(trained.trained_on) == set(images.file_hashes) - set(held_out.file_hashes)


def saved_accuracy(out):
    """The accuracy of the best model's predictions of the held-out images, as `auto` saves them."""
    with np.load(out / "val.npz") as file:
        return (file["probabilities"].argmax(axis=1) == file["labels"]).mean()


@pytest.fixture
def decided(auto_data, tmp_path, monkeypatch, one_epoch):
    """Runs `auto` on twelve held-out images with models that are wrong on the first so many of them.

    Nothing is trained: each run's folder has its predictions and its name. Returns (the run that is best, the accuracy
    that `auto` returns), and has the heads that are tried on the fine-tuned backbone. All decisions are real.
    """
    draw_folder(tmp_path / "validation", 4, classes=3, side=32, seed=9)

    def run(quick, finetuned, heads=12, head=12):
        labels = []

        def answers(wrong):
            shown = np.eye(3)[labels[0]]
            shown[:wrong] = np.roll(shown[:wrong], 1, axis=1)
            return shown

        def probabilities(recipe, head, features, images, rows):
            labels.append(images.labels[rows[1]])
            if not recipe.finetune.epochs:
                return answers(quick)
            run.tried.append(head)
            return answers(heads)

        def train(recipe, name, inputs, out, loaded):
            out.mkdir()
            wrong = {"auto-quick": quick, "auto-finetuned": finetuned, "auto-head": head}[name]
            np.savez(out / "val.npz", probabilities=answers(wrong))
            (out / "name").write_text(name)
            return {"accuracy": 1 - wrong / 12}

        network = SimpleNamespace(get_layer=lambda name: tiny_mixed("none"))
        monkeypatch.setattr(trials, "held_out_probabilities", probabilities)
        monkeypatch.setattr(search, "train", train)
        monkeypatch.setattr(search, "finetuned_model", lambda *rest: network)
        record = SimpleNamespace(versions=search.package_versions())
        monkeypatch.setattr(search, "read_record", lambda folder: record)
        inputs = Inputs(auto_data, "none", validation=tmp_path / "validation")
        accuracy = auto(inputs, tmp_path / "out", minutes=20)
        assert len(labels[0]) == 12
        return (tmp_path / "out" / "best" / "name").read_text(), accuracy

    run.tried = []
    return run


@pytest.mark.parametrize(
    ("quick", "finetuned", "best"),
    [(0, 4, "auto-quick"), (0, 3, "auto-finetuned"), (4, 0, "auto-finetuned"), (1, 5, "auto-quick")],
    ids=["clearly worse", "worse by chance", "better", "clearly worse than a model with mistakes"],
)
def test_a_fine_tuning_is_kept_unless_it_is_clearly_worse(decided, tmp_path, capsys, quick, finetuned, best):
    assert decided(quick, finetuned) == (best, 1 - (quick if best == "auto-quick" else finetuned) / 12)
    refused = f"finetuned: {1 - finetuned / 12:.1%}, worse than {1 - quick / 12:.1%} by more than chance; not kept"
    assert (refused in capsys.readouterr().out) == (best == "auto-quick")
    steps = list(json.loads((tmp_path / "out" / "plan.json").read_text("utf-8"))["steps"])
    assert steps == ["quick", "finetuned"][: 1 if best == "auto-quick" else 2]
    assert saved_accuracy(tmp_path / "out") == 1 - (quick if best == "auto-quick" else finetuned) / 12


@pytest.mark.parametrize(
    ("heads", "trained", "best", "said"),
    [
        (4, None, "auto-finetuned", "no other head on the fine-tuned backbone is better than its softmax"),
        (3, None, "auto-finetuned", "no other head on the fine-tuned backbone is better than its softmax"),
        (2, 4, "auto-finetuned", "head: 66.7% on the held-out images, not better than 75.0%; not kept"),
        (2, 3, "auto-head", "head: 75.0% on the held-out images; kept as"),
        (2, 2, "auto-head", "head: 83.3% on the held-out images; kept as"),
    ],
    ids=["worse", "the same", "worse once trained", "the same once trained", "better"],
)
def test_a_head_is_kept_only_if_it_is_not_worse_than_the_fine_tuning(
    decided, tmp_path, capsys, heads, trained, best, said
):
    shipped, accuracy = decided(3, 3, heads, trained)
    assert shipped == best and saved_accuracy(tmp_path / "out") == accuracy
    assert said in capsys.readouterr().out
    assert (tmp_path / "out" / "head").exists() == (trained is not None)


class Reached(Exception):
    """The fine-tuning would begin."""


@pytest.fixture
def recipes(monkeypatch):
    """Name → recipe of each run that `auto` trains. It ends with `Reached` at the fine-tuning; nothing is trained."""
    recipes = {}

    def train(recipe, name, inputs, out, loaded):
        recipes[name] = recipe
        if name == "auto-finetuned":
            raise Reached
        out.mkdir()

    monkeypatch.setattr(search, "train", train)
    return recipes


@pytest.mark.parametrize(("side", "larger", "stages"), [(64, 1.0, 2), (64, 0.0, 1), (48, 1.0, 1)])
def test_the_larger_input_is_used_if_the_images_are_as_large_and_it_is_not_worse(
    tmp_path, monkeypatch, recipes, side, larger, stages
):
    draw_folder(tmp_path / "leaves", 6, classes=2, side=side)
    for name, value in {"INPUT_SIZE": 48, "LARGE_SIZE": 64, "MAX_EPOCHS": 3}.items():
        monkeypatch.setattr(choices, name, value)
    monkeypatch.setattr(choices, "FEW_EPOCHS", 0)
    monkeypatch.setattr(choices, "MANY_EPOCHS", 0)
    monkeypatch.setattr(search, "MIN_EPOCHS", 1)
    monkeypatch.setattr(search, "seconds_per_image", lambda *rest: 0.1)
    monkeypatch.setattr(trials.Trials, "may_turn", lambda self: False)
    monkeypatch.setattr(trials.Trials, "_predicted", lambda self, head, *rest: np.eye(2)[[0] * len(self.rows[1])])
    monkeypatch.setattr(
        trials.Trials, "_score", lambda self, head: larger if self.size == 64 and not self.plan.steps else 0.5
    )
    with pytest.raises(Reached):
        auto(Inputs(tmp_path / "leaves", "none"), tmp_path / "out", minutes=20)
    schedule = recipes["auto-finetuned"].finetune.resolution_schedule
    assert schedule == (((2, 48), (1, 64)) if stages == 2 else ((3, 48),))
    assert recipes["auto-quick"].finetune.input_size == (64 if stages == 2 else 48)


@pytest.mark.parametrize("worse", [False, True])
def test_the_larger_input_is_compared_with_the_smaller_one(tmp_path, monkeypatch, one_epoch, recipes, worse):
    """With heads that have all images right at 48×48, and at 64×64 none if that is worse."""
    draw_folder(tmp_path / "leaves", 6, classes=2, side=64)
    first = []

    def probabilities(recipe, head, features, images, rows):
        first.append(digest(features))
        right = np.eye(2)[images.labels[rows[1]]]
        return 1 - right if worse and len(first) > 2 and digest(features) not in first[:2] else right

    for name, value in {"INPUT_SIZE": 48, "LARGE_SIZE": 64}.items():
        monkeypatch.setattr(choices, name, value)
    monkeypatch.setattr(trials, "held_out_probabilities", probabilities)
    with pytest.raises(Reached):
        auto(Inputs(tmp_path / "leaves", "none"), tmp_path / "out", minutes=20)
    assert recipes["auto-quick"].finetune.input_size == (48 if worse else 64)


@pytest.mark.parametrize("share", [pytest.param(0.0, id="alone"), pytest.param(0.5, id="averaged")])
@pytest.mark.slow
def test_a_better_head_on_the_fine_tuned_backbone_ships(auto_data, tmp_path, monkeypatch, one_epoch, share):
    best = choices.finetuned_heads(choices.base_recipe({}, "float32"))
    best = next(head for head in best if head.kind == "quasi_svm")
    monkeypatch.setattr(choices, "finetuned_heads", lambda base: [best])
    monkeypatch.setattr(choices, "SOFTMAX_SHARES", (share,))
    with_accuracy(monkeypatch, {"auto-finetuned": 0.1, "auto-head": 0.9})
    monkeypatch.setattr(trials, "accuracy", rising())
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    record = read_record(tmp_path / "out" / "best")
    assert (record.recipe.head.kind, record.recipe.head.softmax_share) == ("quasi_svm", share)
    saved = np.load(tmp_path / "out" / "best" / "val.npz")
    trained = load_run(tmp_path / "out")
    assert saved["probabilities"].shape[1] == 3
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    probabilities = trained.model.predict(images, verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_each_head_on_the_fine_tuned_backbone_is_trained_once(decided):
    decided(3, 3)
    heads = choices.finetuned_heads(choices.base_recipe({}, "float32"))
    assert len(decided.tried) == len(set(map(repr, decided.tried))) == len(heads)


def test_each_head_on_the_pretrained_backbone_is_trained_once(auto_data, tmp_path, monkeypatch, one_epoch, recipes):
    """The mirroring, the layers, the kind of head and the turns are decided with some of the same heads."""
    trained = []

    def probabilities(recipe, head, features, images, rows):
        trained.append((repr(head), digest(features)))
        return np.eye(3)[images.labels[rows[1]]]

    monkeypatch.setattr(trials, "held_out_probabilities", probabilities)
    with pytest.raises(Reached):
        auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    assert len(trained) == len(set(trained))
    # All layers mirrored, without mirror images, and turned; two other sets of layers; the other quick heads.
    assert len(trained) == 3 + 2 + len(choices.quick_heads(choices.base_recipe({}, "float32"), kernels=True)) - 1


@pytest.mark.usefixtures("recipes")
@pytest.mark.parametrize(("minutes", "kinds"), [(2.9, {"linear"}), (3, {"linear", "quasi_svm"})])
def test_quasi_svms_are_tried_from_three_minutes_on(auto_data, tmp_path, monkeypatch, minutes, kinds):
    tried = set()

    def probabilities(recipe, head, features, images, rows):
        tried.add(head.kind)
        return np.eye(3)[images.labels[rows[1]]]

    monkeypatch.setattr(trials, "held_out_probabilities", probabilities)
    monkeypatch.setattr(search.Search, "finetune", lambda self: None)
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes)
    assert tried == kinds


@pytest.mark.usefixtures("one_epoch", "recipes")
@pytest.mark.parametrize(
    "case", [(1, 3, 5, 2 + 2 + 4), (100, 2, 2, 2 + 1 + 1), (400, 1, 1, 2)], ids=["quick", "slow", "very slow"]
)
def test_heads_that_take_long_are_left_out(auto_data, tmp_path, monkeypatch, capsys, case):
    """15 % of 20 minutes are 180 s. The head on all layers is known from the decision on mirror images."""
    each, layers, heads, trained = case  # seconds of a head, then what is tried and trained
    clock = []

    def probabilities(recipe, head, features, images, rows):
        clock.append(each)
        return np.eye(3)[images.labels[rows[1]]]

    monkeypatch.setattr(trials, "held_out_probabilities", probabilities)
    monkeypatch.setattr(trials, "_seconds_per_view", lambda *rest: 0.001)
    monkeypatch.setattr(trials.Trials, "may_turn", lambda self: False)
    monkeypatch.setattr(trials, "time", SimpleNamespace(monotonic=lambda: float(sum(clock))))
    with pytest.raises(Reached):
        auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    printed = capsys.readouterr().out
    assert (f"{layers} of 3 sets of layers tried, because the time is short: one takes {each} s" in printed) is (
        each > 1
    )
    assert (f"{heads} of 5 heads tried, because the time is short" in printed) is (each > 1)
    assert len(clock) == trained


def test_without_time_for_another_head_the_known_one_is_taken(auto_data, tmp_path, monkeypatch, one_epoch, recipes):
    monkeypatch.setattr(trials, "HEADS_SHARE", 0.0)
    with pytest.raises(Reached):
        auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    head = recipes["auto-quick"].head
    assert (head.feature_layers, head.c) == (choices.LAYERS, choices.STRENGTHS[0])


def rising():
    """An accuracy that is higher at each call."""
    calls = []

    def accuracy(probabilities, labels):
        calls.append(1)
        return 0.001 * len(calls)

    return accuracy


@pytest.mark.parametrize("minutes", ["0", "-1", "inf", "nan", "soon"])
def test_minutes_that_are_no_time_are_refused(auto_data, tmp_path, capsys, minutes):
    with pytest.raises(SystemExit) as end:
        main(["auto", "--data", str(auto_data), "--out", str(tmp_path / "out"), "--minutes", minutes])
    assert end.value.code == 2
    assert "--minutes" in capsys.readouterr().err


def test_ctrl_c_names_the_best_model_and_how_to_continue(auto_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search.Search, "quick", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["auto", "--data", str(auto_data), "--out", str(tmp_path / "out"), "--backbone-weights", "none"]) == 130
    shown = capsys.readouterr().err
    assert "interrupted; repeat the command to continue; the folder best of --out, if it is there, has the" in shown


@pytest.mark.slow
def test_an_interruption_leaves_the_best_so_far(auto_data, tmp_path, monkeypatch):
    def interrupt(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "seconds_per_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    assert load_run(tmp_path / "out").names == ("Species1", "Species2", "Species3")


def test_one_image_per_class_is_enough_for_the_quick_model(tmp_path, capsys):
    draw_folder(tmp_path / "leaves", 1, classes=4, side=32)
    auto(Inputs(tmp_path / "leaves", "none"), tmp_path / "out", minutes=20)
    shown = capsys.readouterr().out
    assert "no images are held out" in shown and "on the held-out images" not in shown
    assert len(load_run(tmp_path / "out").names) == 4


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_minutes_must_be_positive(auto_data, tmp_path, minutes):
    with pytest.raises(UserError, match="--minutes must be above 0"):
        auto(Inputs(auto_data, "none"), tmp_path / "out", minutes)


def test_an_existing_folder_is_not_touched(auto_data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("mine")
    with pytest.raises(UserError, match="--out must be a new folder"):
        auto(Inputs(auto_data, "none"), tmp_path / "out", 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_the_command_passes_its_options_on_and_names_the_next_one(tmp_path, monkeypatch, capsys):
    given, out = [], tmp_path / "my runs"
    monkeypatch.setattr(search, "auto", lambda *arguments: given.append(arguments))
    options = ["--data", "leaves", "--minutes", "7.5", "--backbone-weights", "none", "--size", "48x40"]
    assert main(["auto", *options, "--out", str(out)]) == 0
    ((inputs, folder, minutes),) = given
    assert (str(inputs.data), inputs.backbone_weights, inputs.size) == ("leaves", "none", (48, 40))
    assert (folder, minutes) == (out, 7.5)
    assert capsys.readouterr().out == f"done: {out}; next: python build_submission.py --run '{out}'\n"


@pytest.mark.slow
def test_a_missing_folder_ends_the_command_with_an_error(tmp_path):
    done = python("-m", "training", "auto", "--data", tmp_path / "none", "--minutes", "1", isolated=False)
    assert done.returncode == 2
    assert "error: " in done.stderr and "none" in done.stderr


def test_a_huge_folder_is_thinned_to_the_time(auto_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trials, "cost_of_reading", lambda *rest: (4.0, 3072))  # of a limit of 48 seconds
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=0.01)
    shown = capsys.readouterr().out
    assert "of the 29 images are used, because the time is too short" in shown
    assert read_metrics(tmp_path / "out" / "best")["training_images"] < 14


def test_two_images_of_each_of_many_classes_are_used_so_that_some_are_held_out(tmp_path, monkeypatch, capsys):
    draw_folder(tmp_path / "many", 4, classes=8, side=32)
    monkeypatch.setattr(trials, "cost_of_reading", lambda *rest: (4.0, 3072))  # so that 12 fit into 48 seconds
    auto(Inputs(tmp_path / "many", "none"), tmp_path / "out", minutes=0.01)
    shown = capsys.readouterr().out
    assert "16 of the 32 images are used, because the time is too short for more" in shown
    assert re.search(r"quick model: .* on [1-8] held-out images", shown)


def test_a_huge_folder_is_thinned_to_the_memory(auto_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trials, "cost_of_reading", lambda *rest: (0.0, free_memory() // 100))
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=0.01)
    assert "of the 29 images are used, because the memory is too small" in capsys.readouterr().out


def test_the_features_of_small_images_need_memory_as_well(auto_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trials, "free_memory", lambda: 20 * trials.FEATURE_BYTES)
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=0.01)
    assert "of the 29 images are used, because the memory is too small" in capsys.readouterr().out


def test_images_of_the_user_are_evaluated_within_the_time(auto_data, tmp_path, monkeypatch, capsys):
    """Half of the time for reading and features is left to the images that are trained on."""
    monkeypatch.setattr(trials, "cost_of_reading", lambda *rest: (1.6, 3072))  # so that 29 fit into 48 seconds
    draw_folder(tmp_path / "validation", 9, classes=3, side=32, seed=9)
    auto(Inputs(auto_data, "none", validation=tmp_path / "validation"), tmp_path / "out", minutes=0.01)
    assert "of the 29 images are used, because the time is too short" in capsys.readouterr().out
    metrics = read_metrics(tmp_path / "out" / "best")
    assert metrics["images"] == 27 and 8 <= metrics["training_images"] <= 15


@pytest.mark.slow
def test_epochs_are_planned_with_the_images_that_they_are_evaluated_on(auto_data, tmp_path, monkeypatch, recipes):
    """Here, evaluating an epoch takes half as long as training it."""
    monkeypatch.setattr(search, "seconds_per_image", lambda *rest: 1.0)
    monkeypatch.setattr(trials, "_seconds_per_view", lambda *rest: 17 / 12)
    monkeypatch.setattr(choices, "stages", lambda affordable, large: ((int(affordable), 75),))
    draw_folder(tmp_path / "validation", 4, classes=3, side=32, seed=9)
    with pytest.raises(Reached):
        auto(Inputs(auto_data, "none", validation=tmp_path / "validation"), tmp_path / "out", minutes=60)
    count = 24 + 2 * 5  # Species2 is repeated
    epochs = recipes["auto-finetuned"].finetune.epochs
    assert 0.8 * 0.9 * 3600 / (1.5 * count) < epochs <= 0.9 * 3600 / (1.5 * count)


def test_classes_are_repeated_by_their_training_images(auto_data, tmp_path, capsys):
    """The user's validation images may have other shares."""
    draw_folder(tmp_path / "validation", 30, classes=3, side=32, seed=9)
    for name in ("Species1", "Species3"):
        for path in sorted((tmp_path / "validation" / name).iterdir())[3:]:
            path.unlink()
    auto(Inputs(auto_data, "none", validation=tmp_path / "validation"), tmp_path / "out", minutes=0.01)
    assert read_record(tmp_path / "out" / "best").recipe.data.class_repeats == {"Species2": 2}
    assert "29 color images of 3 classes, 5 to 12 each" in capsys.readouterr().out


def test_the_cost_of_reading_is_measured_without_damaged_files(auto_data):
    for path in (auto_data / "Species1").iterdir():
        path.write_bytes(b"no image")
    seconds, size = cost_of_reading(list_classes(auto_data))
    assert 0 < seconds < 5 and size == 32 * 32 * 3


def test_images_are_read_once(auto_data, tmp_path, monkeypatch):
    monkeypatch.setattr("training.run.load_inputs", None)
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=0.01)
    assert read_metrics(tmp_path / "out" / "best")["training_images"] == 29


@pytest.mark.slow
def test_a_fine_tuning_is_repeated_on_all_images_if_there_is_time(auto_data, tmp_path, monkeypatch, one_epoch, capsys):
    monkeypatch.setattr(search, "REPEAT_FACTOR", 1.3)
    monkeypatch.setattr(search, "clearly_worse", lambda *rest: False)
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    recipes = [read_record(tmp_path / "out" / name).recipe for name in ("best", "all")]
    assert recipes[0] == recipes[1]
    assert recipes[0].data.validation_split == 0 and recipes[0].finetune.epochs
    assert read_metrics(tmp_path / "out" / "best")["training_images"] == 29
    assert "trained on all images; " in capsys.readouterr().out


@pytest.fixture
def diverging(monkeypatch):
    """Fine-tunings for which this returns True have a learning rate with which the weights overflow."""

    def diverge(when):
        def trained(recipe, *rest):
            too_high = {"finetune.learning_rate": 1e38} if recipe.finetune.epochs and when(recipe) else {}
            return train(change(recipe, too_high), *rest)

        train = search.train
        monkeypatch.setattr(search, "train", trained)

    return diverge


@pytest.mark.slow
def test_a_fine_tuning_that_diverges_leaves_the_quick_model(
    auto_data, tmp_path, monkeypatch, one_epoch, diverging, capsys
):
    diverging(lambda recipe: True)
    accuracy = auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    plan = json.loads((tmp_path / "out" / "plan.json").read_text("utf-8"))
    assert list(plan["steps"]) == ["quick"]
    assert plan["steps"]["quick"]["held_out_accuracy"] == accuracy
    assert "finetuned: not kept, " in capsys.readouterr().out
    assert read_record(tmp_path / "out" / "best").recipe.finetune.epochs == 0


@pytest.mark.slow
def test_a_repetition_that_diverges_leaves_the_fine_tuning(
    auto_data, tmp_path, monkeypatch, one_epoch, diverging, capsys
):
    monkeypatch.setattr(search, "REPEAT_FACTOR", 1.3)
    monkeypatch.setattr(search, "clearly_worse", lambda *rest: False)
    diverging(lambda recipe: not recipe.data.validation_split)
    auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    assert "all: not kept, " in capsys.readouterr().out
    best = read_record(tmp_path / "out" / "best").recipe
    assert best.finetune.epochs and best.data.validation_split


def mirror_pairs(folder, classes=("left", "right")):
    """Arrows to the left and to the right."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 60, (32, 32, 3)).astype(np.uint8)
            row = rng.integers(8, 24)
            pixels[row - 2 : row + 2, 4:28] = 255
            for step in range(8):
                column = step + 3 if name == "left" else 28 - step
                pixels[row - step : row + step + 1, column] = 255
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_classes_that_are_mirror_images_are_not_mirrored(tmp_path, monkeypatch, one_epoch, recipes):
    def probabilities(recipe, head, features, images, rows):
        right = np.eye(2)[images.labels[rows[1]]]
        return right if len(features) == 1 else 1 - right

    monkeypatch.setattr(trials, "held_out_probabilities", probabilities)
    with pytest.raises(Reached):
        auto(Inputs(mirror_pairs(tmp_path / "arrows"), "none"), tmp_path / "out", minutes=20)
    for recipe in recipes.values():
        assert recipe.prediction.tta_transforms == ("none",)
        assert not recipe.augmentation.transforms.flips and not recipe.augmentation.transforms.quarter_turns


def test_images_of_the_users_validation_folder_are_held_out(auto_data, tmp_path):
    draw_folder(tmp_path / "validation", 3, classes=3, side=32, seed=9)
    auto(Inputs(auto_data, "none", validation=tmp_path / "validation"), tmp_path / "out", minutes=0.01)
    assert not (tmp_path / "out" / "groups.csv").exists()
    assert read_metrics(tmp_path / "out" / "best")["images"] == 9


@pytest.mark.parametrize("harm", [False, True])
def test_images_are_turned_only_if_that_does_no_harm(auto_data, tmp_path, monkeypatch, one_epoch, recipes, harm):
    views = []

    def probabilities(recipe, head, features, images, rows):
        views.append(len(features))
        right = np.eye(3)[images.labels[rows[1]]]
        return 1 - right if harm and len(features) == 4 else right

    monkeypatch.setattr(trials, "held_out_probabilities", probabilities)
    with pytest.raises(Reached):
        auto(Inputs(auto_data, "none"), tmp_path / "out", minutes=20)
    assert 4 in views  # as it is, mirrored, after a quarter turn, and upside down
    recipe = recipes["auto-finetuned"]
    assert recipe.augmentation.transforms.quarter_turns is not harm
    assert ("vertical" in recipe.prediction.tta_transforms) is not harm
