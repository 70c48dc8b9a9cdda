"""The paired difference of two models: of arrays, of two runs and of two cross-validations."""

import shutil

import numpy as np
import pytest
from helpers import change, tiny_recipe
from scipy.stats import binomtest, bootstrap

from common.errors import UserError
from competition.synthetic import draw_folder
from training import __main__ as cli
from training.evaluate.class_bias import class_bias
from training.evaluate.crossval import crossval
from training.evaluate.paired import Difference, changed_answers, compare_held_out, paired_difference, paired_interval
from training.run import Inputs, train
from training.run_folder import OUT_OF_FOLD, VAL

pytestmark = pytest.mark.integration
RECIPE = tiny_recipe()


def answers(correct):
    """Probabilities of two classes for labels 0, correct where told."""
    return np.where(np.asarray(correct)[:, None], [[0.9, 0.1]], [[0.2, 0.8]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders: two runs and two cross-validations of the same images, and one run of other images."""
    folder = tmp_path_factory.mktemp("paired")
    draw_folder(folder / "leaves", 8, classes=3, side=32)
    draw_folder(folder / "others", 8, classes=3, side=32, seed=5)
    inputs, slow = Inputs(folder / "leaves", "none"), change(RECIPE, learning_rate=1e-6)
    train(RECIPE, "small", inputs, folder / "run")
    train(slow, "small", inputs, folder / "slow")
    train(RECIPE, "small", Inputs(folder / "others", "none"), folder / "other")
    crossval(RECIPE, "small", inputs, folder / "folds", 2)
    crossval(slow, "small", inputs, folder / "slow_folds", 2)
    return folder


@pytest.mark.parametrize("kind", ["run", "folds"])
def test_predictions_that_are_not_finite_are_refused(runs, tmp_path, kind):
    """Of a run whose weights became NaN: the class of NaN would be the first one."""
    shutil.copytree(runs / kind, tmp_path / "damaged")
    place = tmp_path / "damaged" / ("" if kind == "run" else "seed0-fold1")
    with np.load(place / VAL) as file:
        arrays = dict(file)
    arrays["probabilities"][2, 1] = np.nan
    np.savez(place / VAL, **arrays)
    with pytest.raises(UserError, match="must be finite, and some are not; train the run again"):
        compare_held_out(runs / kind, tmp_path / "damaged")


def test_gained_and_lost_answers_are_counted():
    before, after = answers([1, 1, 1, 0, 0, 0]), answers([1, 0, 1, 1, 1, 0])
    assert changed_answers(np.zeros(6, int), before, after) == (2, 1)


def test_the_difference_is_close_to_the_bootstrap_and_has_mcnemars_p_value():
    rng = np.random.default_rng(3)
    before = rng.random(400) < 0.7
    after = np.where(rng.random(400) < 0.2, ~before, before)
    found = paired_difference(np.zeros(400, int), answers(before), answers(after))
    change_of_each = after.astype(float) - before
    gained, lost = (change_of_each > 0).sum(), (change_of_each < 0).sum()
    assert (found.images, found.gained, found.lost) == (400, gained, lost)
    assert min(gained, lost) > 10
    assert found.accuracy == pytest.approx(change_of_each.mean())
    drawn = bootstrap((change_of_each,), np.mean, method="percentile", n_resamples=10_000, random_state=0)
    assert (found.low, found.high) == pytest.approx(drawn.confidence_interval, abs=0.004)
    assert found.p_value == pytest.approx(binomtest(int(gained), int(gained + lost)).pvalue)


def test_equal_models_do_not_differ():
    found = paired_difference(np.zeros(50, int), answers([1] * 40 + [0] * 10), answers([1] * 40 + [0] * 10))
    assert (found.gained, found.lost, found.accuracy, found.p_value) == (0, 0, 0, 1)
    assert -0.1 < found.low < -0.01 and found.high == pytest.approx(-found.low)  # 50 images do not prove equality


def test_the_interval_is_that_of_a_published_example():
    """Complete response before and after therapy, in M. Fagerland, S. Lydersen and P. Laake, "Statistical Analysis of
    Contingency Tables", 2017, chapter 8: 59 both, 16 only after, 6 only before, 80 none.
    """
    assert paired_interval(59, 16, 6, 161) == pytest.approx((0.0046, 0.1186), abs=5e-5)


PAIRS = [(0, 0), (4, 0), (5, 0), (6, 0), (7, 1), (9, 1), (12, 4), (30, 10), (18, 9)]


@pytest.mark.parametrize(("gained", "lost"), PAIRS)
def test_the_interval_agrees_with_the_p_value(gained, lost):
    """Of 709 images; the bootstrap excluded 0 with four images gained, whose p-value is 0.12."""
    low, high = paired_interval(660 - lost, gained, lost, 709)
    significant = gained + lost > 0 and binomtest(gained, gained + lost).pvalue < 0.05
    assert (low > 0) == significant
    assert low < (gained - lost) / 709 < high
    low, high = paired_interval(660 - lost, lost, gained, 709)
    assert low < (lost - gained) / 709 < high


def test_a_better_model_is_better_although_the_intervals_of_the_accuracies_overlap():
    found = paired_difference(np.zeros(700, int), answers([1] * 660 + [0] * 40), answers([1] * 675 + [0] * 25))
    assert found.low > 0 and found.p_value < 0.001
    assert str(found).startswith("+2.1 points (95 % interval +1.") and "15 gained, 0 lost" in str(found)


def held_out(run):
    with np.load(run / VAL) as file:
        return file["labels"], file["probabilities"]


def test_two_runs_are_compared_on_their_validation_part(runs, capsys):
    (labels, before), (_, after) = held_out(runs / "slow"), held_out(runs / "run")
    expected = paired_difference(labels, before, after)
    assert compare_held_out(runs / "slow", runs / "run") == expected
    assert expected.images == len(labels) == 6
    assert cli.main(["paired", str(runs / "slow"), str(runs / "run")]) == 0
    assert f"{runs / 'run'}: {expected}" in capsys.readouterr().out


def test_two_cross_validations_are_compared_on_every_image(runs):
    with np.load(runs / "slow_folds" / OUT_OF_FOLD) as before, np.load(runs / "folds" / OUT_OF_FOLD) as after:
        expected = paired_difference(before["labels"], before["probabilities"][0], after["probabilities"][0])
    assert compare_held_out(runs / "slow_folds", runs / "folds") == expected
    assert expected.images == 24


def test_of_unfinished_cross_validations_the_finished_folds_are_compared(runs, tmp_path):
    folder = shutil.copytree(runs / "folds", tmp_path / "folds")
    (folder / "seed0-fold1" / "metrics.json").unlink()
    (labels, before), (_, after) = held_out(runs / "slow_folds" / "seed0-fold0"), held_out(folder / "seed0-fold0")
    assert compare_held_out(runs / "slow_folds", folder) == paired_difference(labels, before, after)


def test_folds_of_several_cross_validations_in_one_folder_are_refused(runs, tmp_path):
    folder = shutil.copytree(runs / "folds", tmp_path / "folds")
    shutil.copytree(runs / "slow_folds" / "seed0-fold1", folder / "seed0-fold1", dirs_exist_ok=True)
    with pytest.raises(UserError, match="must have the folds of one cross-validation"):
        compare_held_out(runs / "slow_folds", folder)


def test_of_auto_the_predictions_of_before_the_training_on_all_images_are_compared(runs, tmp_path):
    """Its best run may be trained on all images, and has no predictions then."""
    best = shutil.copytree(runs / "run", tmp_path / "auto" / "best")
    (best / VAL).rename(tmp_path / "auto" / VAL)
    assert compare_held_out(runs / "slow", tmp_path / "auto") == compare_held_out(runs / "slow", runs / "run")
    with pytest.raises(UserError, match="class biases are a setting of recipes, and .*auto is of auto"):
        class_bias(tmp_path / "auto")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("other", "both must be trained on the same images and classes"),
        ("leaves", "no run at .*leaves"),
        ("nowhere", "no folder .*nowhere"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs, other, message):
    with pytest.raises(UserError, match=message):
        compare_held_out(runs / "run", runs / other)


def test_runs_with_other_held_out_images_are_refused(runs, tmp_path):
    folder = shutil.copytree(runs / "run", tmp_path / "run")
    with np.load(folder / VAL) as file:
        arrays = dict(file)
    np.savez(folder / VAL, **{**arrays, "rows": arrays["rows"] + 100})
    with pytest.raises(UserError, match="held out different images"):
        compare_held_out(runs / "run", folder)


@pytest.mark.parametrize(("damage", "message"), [("missing", "with a validation set"), ("cut", "is damaged")])
def test_damaged_predictions_are_refused(runs, tmp_path, damage, message):
    path = shutil.copytree(runs / "run", tmp_path / "run") / VAL
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=message):
        compare_held_out(runs / "slow", path.parent)


@pytest.mark.unit
def test_a_difference_that_rounds_to_0_has_no_minus():
    assert Difference(2000, 4, 5, -0.00047, -0.004, 0.0030, 1.0).points == ["+0.0", "-0.4", "+0.3"]
