"""Class biases: fitted on held-out predictions, and added to the logits of a quasi-SVM."""

import numpy as np
import pytest
from helpers import change, tiny_recipe
from scipy.special import softmax

from common.errors import UserError
from competition.synthetic import draw_folder
from training import __main__ as cli
from training.config.override import override
from training.config.recipe import Head
from training.evaluate.class_bias import class_bias, cross_fitted, fit_class_bias, with_bias
from training.evaluate.crossval import crossval
from training.inputs import Inputs
from training.run import train
from training.run_folder import VAL

TOO_MUCH = np.array([-2.0, 1.5, 0.5])


@pytest.fixture(scope="module")
def predictions():
    """Labels drawn from known probabilities, and these probabilities with a bias that is too much."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (6000, 3))
    labels = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((6000, 1))).argmax(axis=1)
    return labels, softmax(logits + TOO_MUCH, axis=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders: a run of a quasi-SVM, the same with a bias, and a cross-validation."""
    folder = tmp_path_factory.mktemp("class_bias")
    draw_folder(folder / "leaves", 12, classes=3, side=32)
    inputs, recipe = Inputs(folder / "leaves", "none"), tiny_recipe(head=Head(epochs=4, fourier_features=64))
    train(recipe, "small", inputs, folder / "run")
    biased = change(recipe, head=Head(epochs=4, fourier_features=64, class_bias={"Species2": 0.7}))
    train(biased, "small", inputs, folder / "biased")
    crossval(recipe, "small", inputs, folder / "folds", 2)
    return folder


def held_out(run):
    with np.load(run / VAL) as file:
        return file["labels"], file["probabilities"]


@pytest.mark.unit
def test_the_bias_that_is_too_much_is_found(predictions):
    found = fit_class_bias(*predictions)
    np.testing.assert_allclose(found - found.mean(), TOO_MUCH.mean() - TOO_MUCH, atol=0.12)


@pytest.mark.unit
def test_mean_probabilities_are_then_the_shares_of_the_labels(predictions):
    labels, probabilities = predictions
    means = with_bias(probabilities, fit_class_bias(labels, probabilities)).mean(axis=0)
    np.testing.assert_allclose(means, np.bincount(labels) / len(labels), atol=0.005)
    assert np.abs(probabilities.mean(axis=0) - means).max() > 0.1


@pytest.mark.unit
def test_biases_are_added_to_logits():
    logits, bias = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), np.array([0.5, -1.0, 0.0])
    np.testing.assert_allclose(with_bias(softmax(logits, axis=1), bias), softmax(logits + bias, axis=1), atol=1e-6)


@pytest.mark.unit
def test_no_image_has_biases_that_were_fitted_on_it(predictions, monkeypatch):
    """Every fit of four fifths of the images gets a bias of its own here, so that each image tells which one it has."""
    labels, probabilities = (array[:60] for array in predictions)
    fitted_on = []

    def fit(_, others):
        fitted_on.append({row.tobytes() for row in others})
        return np.array([float(len(fitted_on)), 0, 0])

    monkeypatch.setattr("training.evaluate.class_bias.fit_class_bias", fit)
    result = cross_fitted(labels, probabilities)
    candidates = [with_bias(probabilities, np.array([fold + 1.0, 0, 0])) for fold in range(5)]
    used = np.argmin([np.abs(result - one).max(axis=1) for one in candidates], axis=0)
    assert len(fitted_on) == 5 and all(len(others) == 48 for others in fitted_on)
    for row, fold in enumerate(used):
        assert probabilities[row].tobytes() not in fitted_on[fold]
    assert np.bincount(used).tolist() == [12] * 5


@pytest.mark.unit
def test_cross_fitted_biases_improve_biased_predictions(predictions):
    labels, probabilities = predictions
    before, after = (np.mean(one.argmax(axis=1) == labels) for one in (probabilities, cross_fitted(*predictions)))
    assert after > before + 0.05


@pytest.mark.integration
@pytest.mark.slow
def test_a_head_with_biases_predicts_as_if_they_were_added_afterwards(runs):
    (labels, plain), (_, biased) = held_out(runs / "run"), held_out(runs / "biased")
    np.testing.assert_allclose(biased, with_bias(plain, np.array([0, 0.7, 0])), atol=1e-5)
    found, worth = class_bias(runs / "run")
    assert list(found) == ["Species1", "Species2", "Species3"]
    assert worth.images == len(labels) == 9
    np.testing.assert_allclose(list(found.values()), fit_class_bias(labels, plain), atol=0.006)


@pytest.mark.integration
@pytest.mark.slow
def test_the_biases_of_the_recipe_are_part_of_those_that_are_found(runs):
    """Whatever the run already adds, the total is the same up to an offset of all classes."""
    totals = [np.array(list(class_bias(runs / name)[0].values())) for name in ("run", "biased")]
    np.testing.assert_allclose(totals[0] - totals[0].mean(), totals[1] - totals[1].mean(), atol=0.05)


@pytest.mark.integration
@pytest.mark.slow
def test_the_command_prints_a_setting_for_a_cross_validation(runs, capsys):
    assert cli.main(["class-bias", str(runs / "folds")]) == 0
    printed = capsys.readouterr().out
    assert "on the same 36 images" in printed
    setting = printed.split("--set '")[1].split("'\n")[0].replace("'\"'\"'", "'")
    recipe = override(tiny_recipe(head=Head()), [setting])
    assert recipe.head.class_bias == class_bias(runs / "folds")[0]


@pytest.mark.integration
@pytest.mark.slow
def test_wrong_folders_and_classes_are_refused(runs, tmp_path, capsys):
    assert cli.main(["class-bias", str(tmp_path)]) == 2
    assert "no run at" in capsys.readouterr().err
    draw_folder(tmp_path / "few", 4, classes=3, side=32)
    train(
        tiny_recipe(head=Head(epochs=1, fourier_features=8)),
        "small",
        Inputs(tmp_path / "few", "none"),
        tmp_path / "run",
    )
    with pytest.raises(UserError, match="at least 2 images .* Species1 has 1; give a cross-validation"):
        class_bias(tmp_path / "run")
    head = Head(epochs=1, fourier_features=8, class_bias={"Oak": 1.0})
    with pytest.raises(UserError, match="head.class_bias must name classes of the data, Species1, .* got Oak"):
        train(tiny_recipe(head=head), "small", Inputs(runs / "leaves", "none"), tmp_path / "oak")


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("head", [Head(kind="softmax"), Head(epochs=1, fourier_features=8, softmax_share=0.5)])
def test_a_head_that_cannot_have_biases_is_refused(runs, tmp_path, head):
    train(tiny_recipe(head=head), "small", Inputs(runs / "leaves", "none"), tmp_path / "run")
    with pytest.raises(UserError, match="need a quasi-SVM without head.softmax_share"):
        class_bias(tmp_path / "run")
