"""A model soup: several fine-tunings from the same weights, and the mean of theirs."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import change, tiny_recipe

from common.errors import UserError
from competition.synthetic import draw_folder
from training.evaluate.crossval import crossval
from training.fit import finetune as module
from training.fit.checkpoint import read_history
from training.fit.finetune import CHECKPOINT, FINETUNED_WEIGHTS
from training.fit.soup import soup_parts
from training.predict import predict_proba
from training.run import Inputs, train
from training.run_folder import INIT, RECORD, read_record
from training.trained import finetuned_model, load_run

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # each trains several times
FIRST = tiny_recipe(resolution_schedule=((2, 32),), checkpoint="last")
SECOND = change(FIRST, init_from=FIRST.finetune, resolution_schedule=((1, 32),), learning_rate=3e-3)
SOUP = change(SECOND, soup=2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_by_name):
    folder = tmp_path_factory.mktemp("soup")
    draw_folder(folder / "leaves", 8, classes=3, side=32)
    return Inputs(folder / "leaves", "none")


@pytest.fixture(scope="module")
def soup(inputs, tmp_path_factory):
    """The folder and the metrics of a finished soup."""
    out = tmp_path_factory.mktemp("runs") / "soup"
    return out, train(SOUP, "small", inputs, out)


@pytest.fixture
def trained(monkeypatch):
    """The seeds of the epochs that are trained from now on."""
    seeds, one_epoch = [], module._one_epoch

    def watched(job, model, epoch):
        seeds.append(job.recipe.seed)
        return one_epoch(job, model, epoch)

    monkeypatch.setattr(module, "_one_epoch", watched)
    return seeds


def weights(folder):
    model = finetuned_model(SECOND, ("a", "b", "c"), (32, 32), folder)
    return {f"{place} {variable.name}": variable.numpy() for place, variable in enumerate(model.variables)}


def test_a_soup_is_the_mean_of_fine_tunings_with_different_seeds(soup, inputs, tmp_path):
    out, metrics = soup
    mean, parts = weights(out), [weights(out / "soup" / str(number)) for number in range(2)]
    for name, value in mean.items():
        if "moving" not in name:  # batch statistics are measured anew
            np.testing.assert_allclose(value, (parts[0][name] + parts[1][name]) / 2, atol=1e-6)
    assert any(np.abs(parts[0][name] - parts[1][name]).max() > 1e-4 for name in mean)
    train(SECOND, "small", inputs, tmp_path / "one")
    for name, value in weights(tmp_path / "one").items():
        np.testing.assert_allclose(value, parts[0][name], atol=1e-5)
    assert [part.seed for part, _ in soup_parts(SOUP, out)] == [0, 1000]
    assert metrics["epochs"] == SOUP.finetune.all_epochs == 4
    assert [row["epoch"] for row in read_history(out / "history.csv")] == [1, 2]


def test_a_soup_measures_its_batch_statistics_anew(soup):
    out, _ = soup
    mean, parts = weights(out), [weights(out / "soup" / str(number)) for number in range(2)]
    for name in (name for name in mean if "moving_mean" in name):
        assert np.abs(mean[name] - (parts[0][name] + parts[1][name]) / 2).max() > 1e-4


def test_a_finished_soup_predicts_with_the_mean(soup, inputs):
    from common.images import load_folder

    loaded = load_run(soup[0])
    images = load_folder(inputs.data).images[:4]
    expected = predict_proba(finetuned_model(SOUP, loaded.names, (32, 32), soup[0]), images, loaded.prediction)
    np.testing.assert_allclose(predict_proba(loaded.model, images, loaded.prediction), expected, atol=1e-6)


def test_an_interrupted_soup_goes_on(soup, inputs, tmp_path, monkeypatch):
    one_epoch, calls = module._one_epoch, []

    def interrupted(job, model, epoch):
        calls.append(epoch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return one_epoch(job, model, epoch)

    monkeypatch.setattr(module, "_one_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(SOUP, "small", inputs, tmp_path / "run")
    train(SOUP, "small", inputs, tmp_path / "run")
    assert len(calls) == 5  # two of the first fine-tuning, one of the first part, and the second part twice
    expected = weights(soup[0])
    for name, value in weights(tmp_path / "run").items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)


@pytest.mark.slow
def test_a_soup_reuses_a_run_and_what_that_started_from(inputs, tmp_path, trained, capsys):
    train(SECOND, "small", inputs, tmp_path / "one")
    assert trained == [0, 0, 0]
    again = replace(inputs, reuse=(tmp_path / "one",), require_reuse=True)
    train(SOUP, "small", again, tmp_path / "soup")
    assert trained == [0, 0, 0, 1000]  # the second part alone
    text = capsys.readouterr().out
    assert (
        f"same as in {tmp_path / 'one'}: reusing" in text and f"same as in {tmp_path / 'one' / INIT}: reusing" in text
    )
    notes = (tmp_path / "soup" / RECORD).read_text("utf-8")
    assert '"soup_0_of"' in notes and '"init_from_of"' in notes
    assert read_record(tmp_path / "soup").recipe == SOUP
    train(change(SOUP, kind="quasi_svm"), "small", replace(inputs, reuse=(tmp_path / "soup",)), tmp_path / "svm")
    assert trained == [0, 0, 0, 1000]


def test_a_run_with_the_seed_of_a_part_is_not_the_part(soup, inputs, tmp_path, trained):
    """It starts from a first fine-tuning with its own seed, the part from one with the seed of the soup."""
    train(change(SECOND, seed=1000), "small", replace(inputs, reuse=(soup[0],)), tmp_path / "one")
    assert trained == [1000] * 3
    trained.clear()
    runs = (tmp_path / "one", soup[0])
    train(change(SOUP, seed=1000), "small", replace(inputs, reuse=runs), tmp_path / "other")
    assert trained == [2000]
    train(change(SOUP, soup=3), "small", replace(inputs, reuse=runs), tmp_path / "larger")
    assert trained == [2000, 2000]


@pytest.mark.slow
def test_parts_are_reused_only_with_what_they_started_from(inputs, tmp_path, trained):
    train(SECOND, "small", inputs, tmp_path / "one")
    (tmp_path / "one" / INIT / CHECKPOINT).unlink()
    train(SOUP, "small", replace(inputs, reuse=(tmp_path / "one",)), tmp_path / "soup")
    assert trained == [0, 0, 0] + [0, 0, 0, 1000]


def test_a_run_reuses_the_first_part_of_a_soup(soup, inputs, tmp_path, trained):
    result = train(SECOND, "small", replace(inputs, reuse=(soup[0],), require_reuse=True), tmp_path / "one")
    assert (trained, result["epochs"]) == ([], 3)


def test_folders_called_soup_are_no_soups(inputs, tmp_path, trained):
    """Only the recipe says what a soup is."""
    crossval(SECOND, "small", inputs, tmp_path / "soup", 2)
    again = replace(inputs, reuse=(tmp_path / "soup",))
    result = crossval(change(SECOND, kind="quasi_svm"), "small", again, tmp_path / "more" / "soup", 2)
    assert result["images"] == 24 and len(trained) == 6
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == ["soup"]


def test_another_second_fine_tuning_reuses_the_first(inputs, tmp_path, trained):
    train(SECOND, "small", inputs, tmp_path / "one")
    train(change(SECOND, learning_rate=1e-3), "small", replace(inputs, reuse=(tmp_path / "one",)), tmp_path / "two")
    assert len(trained) == 4
    assert (tmp_path / "two" / INIT / CHECKPOINT).exists() and (tmp_path / "two" / INIT / FINETUNED_WEIGHTS).exists()


def test_a_cross_validation_reuses_the_folds_of_another(inputs, tmp_path, trained):
    crossval(SECOND, "small", inputs, tmp_path / "folds", 2)
    assert len(trained) == 6
    crossval(SOUP, "small", replace(inputs, reuse=(tmp_path / "folds",)), tmp_path / "soups", 2)
    assert len(trained) == 8
    with pytest.raises(UserError, match="--reuse must be a cross-validation with a finished fold"):
        crossval(SOUP, "small", replace(inputs, reuse=(tmp_path,)), tmp_path / "others", 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"soup": 0}, "a whole number from 1"),
        ({"init_from": None}, "1 without init_from"),
        ({"resolution_schedule": ((0, 32),)}, "1 without epochs"),
        ({"head_warmup_epochs": 1}, "1 without epochs or with head_warmup_epochs"),
        ({"replicas": 2}, "1 with several replicas"),
    ],
    ids=["none", "no start", "no epochs", "warm-up", "replicas"],
)
def test_impossible_soups_are_refused(changes, expected):
    with pytest.raises(UserError, match=f"finetune.soup must be {expected}"):
        change(SOUP, **changes)
