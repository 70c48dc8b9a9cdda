"""Stratified splits, folds, and the copy of a split into folders."""

from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import UserError
from common.images import Images, load_folder
from training.config.recipe import Data
from training.data.split import copy_split, split, split_fold, split_rows

pytestmark = pytest.mark.unit
LABELS = np.repeat([0, 1, 2], [100, 40, 20])
NAMES = ("Species1", "Species2", "Species3")


def check_partition(train, val):
    """Every row is in exactly one part, and both parts are sorted."""
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(LABELS)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(val) > 0)


def test_split_keeps_the_proportions_and_every_row():
    train, val = split(LABELS, 0.25, 0)
    assert np.bincount(LABELS[val]).tolist() == [25, 10, 5]
    check_partition(train, val)


def test_split_depends_only_on_the_seed():
    val = split(LABELS, 0.25, 3)[1]
    assert np.array_equal(val, split(LABELS, 0.25, 3)[1])
    assert not np.array_equal(val, split(LABELS, 0.25, 4)[1])


def test_split_may_hold_nothing_out():
    train, val = split(LABELS, 0, 0)
    assert np.array_equal(train, np.arange(160))
    assert val.shape == (0,)


@pytest.mark.parametrize(
    ("labels", "validation_split", "named"),
    [
        ([0, 0, 0, 1], 0.5, "Species2"),
        ([0, 0, 1, 1, 2, 2], 0.1, "10%"),
        ([0, 0, 1, 1], 1.5, "150%"),
        ([0, 0, 1, 1], -0.5, "-50%"),
    ],
)
def test_impossible_split_is_refused(labels, validation_split, named):
    with pytest.raises(UserError, match=named):
        split(np.array(labels), validation_split, 0, NAMES)


def test_each_row_is_in_one_of_the_folds_and_each_fold_is_stratified():
    folds = [split_fold(LABELS, 5, fold, 0) for fold in range(5)]
    for train, val in folds:
        check_partition(train, val)
        assert np.bincount(LABELS[val]).tolist() == [20, 8, 4]
    assert np.array_equal(np.sort(np.concatenate([val for _, val in folds])), np.arange(len(LABELS)))


def test_folds_depend_only_on_the_seed():
    val = split_fold(LABELS, 5, 1, 3)[1]
    assert np.array_equal(val, split_fold(LABELS, 5, 1, 3)[1])
    assert not np.array_equal(val, split_fold(LABELS, 5, 1, 4)[1])


@pytest.mark.parametrize(("names", "named"), [(NAMES, "Species3 has 20"), (None, "2 has 20")])
def test_class_with_fewer_images_than_folds_is_refused(names, named):
    with pytest.raises(UserError, match=f"21 folds.*{named}.*--folds"):
        split_fold(LABELS, 21, 0, 0, names)


def test_a_recipe_holds_out_a_share_or_a_fold():
    images = Images(np.zeros((160, 1, 1, 3), np.uint8), LABELS, NAMES, ("",) * 160)
    share = split_rows(Data(validation_split=0.25, split_seed=3), images)
    fold = split_rows(Data(validation_split=0.25, split_seed=3, folds=5, fold=2), images)
    for found, expected in ((share, split(LABELS, 0.25, 3)), (fold, split_fold(LABELS, 5, 2, 3))):
        for rows, expected_rows in zip(found, expected, strict=True):
            np.testing.assert_array_equal(rows, expected_rows)


def files(folder):
    """Relative path → bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_copy_split_copies_every_image_into_one_of_two_parts(leaf_folder, tmp_path):
    out = tmp_path / "new" / "split"
    lines = copy_split(leaf_folder, out, 0.25, 0)
    train, validation = files(out / "train"), files(out / "validation")
    assert {**train, **validation} == files(leaf_folder)
    assert (len(train), len(validation)) == (18, 6)
    assert {path.name for path in out.iterdir()} == {"train", "validation"}
    assert [path.name for path in out.parent.iterdir()] == ["split"]
    assert lines == [f"18 images in {out / 'train'}, 6 images in {out / 'validation'}"]
    expected = load_folder(leaf_folder)
    rows = split(expected.labels, 0.25, 0)[1]
    assert sorted(validation) == sorted(expected.paths[row].split("/leaves/")[1] for row in rows)


def test_copy_split_depends_only_on_the_seed(leaf_folder, tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        copy_split(leaf_folder, tmp_path / name, 0.25, seed)
    one, same, other = (files(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_copy_split_reports_skipped_files(leaf_folder, tmp_path):
    (leaf_folder / "Species1" / "notes.txt").write_text("oak leaves")
    lines = copy_split(leaf_folder, tmp_path / "split", 0.25, 0)
    assert len(lines) == 2
    assert "notes.txt" in lines[0]
    assert not list((tmp_path / "split").rglob("notes.txt"))


def test_copy_split_overwrites_nothing(leaf_folder, tmp_path):
    out = tmp_path / "split"
    out.mkdir()
    (out / "kept.txt").write_text("mine")
    with pytest.raises(UserError, match="--out.*exists"):
        copy_split(leaf_folder, out, 0.25, 0)
    assert [path.name for path in out.iterdir()] == ["kept.txt"]


def test_copy_split_leaves_nothing_when_copying_fails(leaf_folder, tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.data.split.shutil", SimpleNamespace(copy2=fail))
    with pytest.raises(OSError, match="No space"):
        copy_split(leaf_folder, tmp_path / "split", 0.25, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["leaves"]
