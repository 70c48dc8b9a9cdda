"""Stratified splits, folds, and the copy of a split into folders."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import UserError
from common.images import Images, load_folder
from training.config.recipe import Data
from training.data.copy_split import copy_split
from training.data.split import split, split_fold, split_rows, split_warnings
from training.inputs import Inputs

pytestmark = pytest.mark.unit
LABELS = np.repeat([0, 1, 2], [100, 40, 20])
NAMES = ("Species1", "Species2", "Species3")


def check_partition(train, val, count=160):
    """Every row is in exactly one part, and both parts are sorted."""
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(count))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(val) > 0)


def test_split_keeps_the_proportions_and_every_row():
    train, val = split(LABELS, 0.25, 0)
    assert np.bincount(LABELS[val]).tolist() == [25, 10, 5]
    check_partition(train, val)


@pytest.mark.parametrize("counts", [(80, 2, 2, 2), (60, 4, 4, 4, 4, 4), (50, 30, 3, 3), (100, 2, 2)])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_class_with_several_images_is_in_both_parts(counts, share, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    train, val = split(labels, share, seed)
    check_partition(train, val, len(labels))
    assert set(labels[train]) == set(labels[val]) == set(labels)
    assert len(val) == pytest.approx(share * len(labels), abs=len(counts))


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
        ([0, 0, 0, 1], 0.5, "of at least two classes, got 1 such classes"),
        ([0, 1, 2], 0.5, "of at least two classes, got 0 such classes"),
        ([0, 0, 1, 1, 2, 2], 0.1, "3 classes, 10% of 6 .*=0.5,"),
        (np.repeat(np.arange(200), 4), 0.2, "200 classes, 20% of 800 .*=0.25,"),
        ([0, 0, 1, 1], 1.5, "from 0 to below 1, got 1.5"),
        ([0, 0, 1, 1], -0.5, "from 0 to below 1, got -0.5"),
    ],
)
def test_impossible_split_is_refused(labels, validation_split, named):
    with pytest.raises(UserError, match=named):
        split(np.array(labels), validation_split, 0, NAMES)


def test_the_share_that_the_error_names_is_possible():
    labels = np.repeat(np.arange(200), 4)
    val = split(labels, 0.25, 0)[1]
    assert labels[val].tolist() == list(range(200))


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


# --- copies stay in one part

# The rows held out of [0, 1, 2] * 10 by the versions that knew no groups.
BEFORE_GROUPS = [
    (split, (0.2, 7), [11, 12, 17, 18, 22, 25]),
    (split, (0.4, 1), [3, 4, 5, 7, 8, 14, 15, 19, 21, 22, 23, 24]),
    (split_fold, (5, 2, 3), [0, 3, 5, 16, 17, 28]),
    (split_fold, (3, 0, 0), [0, 2, 7, 10, 12, 17, 19, 20, 21, 24]),
]


@pytest.mark.parametrize("groups", [None, np.arange(30), np.arange(30)[::-1]], ids=["none", "rows", "other numbers"])
@pytest.mark.parametrize(("function", "arguments", "expected"), BEFORE_GROUPS)
def test_split_without_copies_is_that_of_earlier_versions(function, arguments, expected, groups):
    train, val = function(np.array([0, 1, 2] * 10), *arguments, None, groups)
    assert val.tolist() == expected
    assert train.tolist() == sorted(set(range(30)) - set(expected))


def copies(rng):
    """Groups in which a third of the rows are copies of an earlier row of their class."""
    groups = np.arange(len(LABELS))
    for row in rng.choice(np.arange(1, len(LABELS)), len(LABELS) // 3, replace=False):
        earlier = np.flatnonzero(LABELS[:row] == LABELS[row])
        groups[row] = groups[rng.choice(earlier)] if len(earlier) else row
    return groups


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_in_one_part_of_every_split_and_fold(seed):
    groups = copies(np.random.default_rng(seed))
    parts = [split(LABELS, 0.25, seed, None, groups)]
    parts += [split_fold(LABELS, 4, fold, seed, None, groups) for fold in range(4)]
    for train, val in parts:
        check_partition(train, val)
        assert not set(groups[train]) & set(groups[val])
        assert set(LABELS[val]) == {0, 1, 2}
        # The different images are stratified as before.
        different = [len(set(groups[label == LABELS])) for label in range(3)]
        held_out = [len(set(groups[val][LABELS[val] == label])) for label in range(3)]
        assert all(abs(out - count / 4) <= 1 for out, count in zip(held_out, different, strict=True))
    assert np.array_equal(np.sort(np.concatenate([val for _, val in parts[1:]])), np.arange(len(LABELS)))


MIXED = np.repeat(np.arange(20), 6)  # twenty groups of six images each
MIXED_LABELS = np.tile([0, 0, 0, 1, 1, 2], 20)


@pytest.mark.parametrize("seed", range(5))
def test_groups_with_images_of_several_classes_are_in_one_part(seed):
    parts = [split_fold(MIXED_LABELS, 4, fold, seed, None, MIXED) for fold in range(4)]
    for train, val in parts:
        check_partition(train, val, len(MIXED))
        assert not set(MIXED[train]) & set(MIXED[val])
        assert np.bincount(MIXED_LABELS[val]).tolist() == [15, 10, 5]
    assert np.array_equal(np.sort(np.concatenate([val for _, val in parts])), np.arange(len(MIXED)))


@pytest.mark.parametrize(
    ("share", "groups"), [(0.01, 1), (0.05, 1), (0.1, 2), (0.2, 4), (0.4, 8), (0.7, 14), (0.95, 19), (0.99, 19)]
)
def test_about_the_share_of_the_mixed_groups_is_held_out(share, groups):
    train, val = split(MIXED_LABELS, share, 0, None, MIXED)
    check_partition(train, val, len(MIXED))
    assert not set(MIXED[train]) & set(MIXED[val])
    assert len(set(MIXED[val])) == groups


@pytest.mark.parametrize(("share", "held_out"), [(0.01, 12), (0.02, 20), (0.05, 52), (0.95, 952)])
def test_a_small_or_large_share_of_many_mixed_groups_is_held_out(share, held_out):
    groups = np.repeat(np.arange(250), 4)
    assert len(split(np.tile([0, 0, 1, 1], 250), share, 0, None, groups)[1]) == held_out


@pytest.mark.parametrize("share", [0.1, 1 / 7, 0.2])
@pytest.mark.parametrize("each", range(3, 10))
def test_mixed_groups_of_small_classes_are_held_out_in_a_share_that_is_possible(each, share):
    """Of classes of `each` images, with one scene that shows two of them."""
    labels, groups = np.repeat([0, 1, 2], each), np.arange(3 * each)
    groups[each] = 0
    train, val = split(labels, share, 0, None, groups)
    check_partition(train, val, len(labels))
    assert np.abs(np.bincount(labels[val], minlength=3) - max(1, share * each)).max() <= 1
    assert set(labels[train]) == set(labels[val]) == {0, 1, 2}


@pytest.mark.parametrize(("classes", "each", "groups"), [(20, 60, 200), (10, 99, 1000), (3, 15, 12)])
@pytest.mark.parametrize("share", [0.03, 0.07, 0.95])
def test_small_and_large_shares_of_mixed_groups_of_any_number_can_be_held_out(classes, each, groups, share):
    labels = np.repeat(np.arange(classes), each)
    mixed = np.random.default_rng(0).integers(groups, size=len(labels))
    train, val = split(labels, share, 0, None, mixed)
    check_partition(train, val, len(labels))
    assert set(labels[train]) == set(range(classes))
    assert abs(len(val) / len(labels) - share) < 2 / min(groups, 100) + 0.03


@pytest.mark.parametrize("count", range(2, 12))
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_at_least_one_of_few_mixed_groups_is_in_each_part(count, share):
    labels, groups = np.tile([0, 0, 0, 1, 1, 2], count), np.repeat(np.arange(count), 6)
    train, val = split(labels, share, 0, None, groups)
    check_partition(train, val, len(labels))
    wanted = min(max(round(share * count), 1), count - 1)
    assert abs(len(val) / 6 - wanted) <= 1 and min(len(train), len(val)) >= 6


@pytest.mark.parametrize("count", [6, 9, 20, 51])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.51, 0.66, 0.9, 0.98])
def test_a_share_that_leaves_a_class_out_is_refused_with_one_that_does_not(count, share):
    labels = np.arange(count) % 3
    try:
        parts = split(labels, share, 0)
    except UserError as error:
        parts = split(labels, float(re.search("hold out a share of ([0-9.]+) ", str(error))[1]), 0)
    assert all(len(np.unique(labels[part])) == 3 for part in parts)


def test_mixed_groups_that_cannot_be_split_are_refused():
    labels, groups = np.array([0, 0, 1, 0, 0, 0]), np.array([0, 1, 1, 2, 3, 4])
    with pytest.raises(UserError, match="two groups of images of at least two classes"):
        split(labels, 0.5, 0, NAMES, groups)
    with pytest.raises(UserError, match="cannot split these groups into 7 parts"):
        split_fold(labels, 7, 0, 0, NAMES, groups)
    pairs = np.array([0, 1, 1, 2, 2, 0]), np.array([0, 0, 1, 1, 2, 2])  # of three groups, two are in one part
    with pytest.raises(UserError, match="each part has each class; one would have no image of"):
        split(*pairs[:1], 0.5, 0, NAMES, pairs[1])


def test_the_first_fold_is_refused_if_a_later_one_lacks_a_class():
    """Three patients have the second illness, so that two of five folds have none of them."""
    labels, groups = np.array([0, 1] * 3 + [0, 0] * 12), np.repeat(np.arange(15), 2)
    for fold in range(5):
        with pytest.raises(UserError, match="one would have no image of Species2"):
            split_fold(labels, 5, fold, 0, NAMES, groups)


def test_other_seeds_are_tried_until_each_part_has_each_class():
    """Nine patients with one of two illnesses each, and healthy images of all."""
    labels, groups = np.array([0, 1] * 4 + [0, 2] * 5), np.repeat(np.arange(9), 2)
    for seed in range(10):
        train, val = split(labels, 0.125, seed, None, groups)
        check_partition(train, val, len(labels))
        assert set(labels[train]) == set(labels[val]) == {0, 1, 2}
        assert not set(groups[train]) & set(groups[val])


def test_a_class_that_is_trained_on_need_not_be_held_out():
    """All images of class 3 are in group 0, which has one of two groups of class 4."""
    labels, groups = np.append(MIXED_LABELS, [3, 4, 4]), np.append(MIXED, [0, 0, 1])
    for seed in range(5):
        train, val = split(labels, 0.25, seed, None, groups)
        assert set(labels[train]) == {0, 1, 2, 3, 4} and {0, 1, 2} <= set(labels[val]) <= {0, 1, 2, 4}


def test_a_group_with_all_images_of_a_class_is_trained_on():
    labels, groups = np.append(MIXED_LABELS, 3), np.append(MIXED, 7)
    train, val = split(labels, 0.25, 0, None, groups)
    check_partition(train, val, len(labels))
    assert 7 in groups[train] and 7 not in groups[val]
    assert set(labels[val]) == {0, 1, 2}


def test_class_of_one_image_and_its_copies_is_trained_on_and_named():
    labels, groups = np.array([0, 0, 0, 2, 2, 1, 1, 1]), np.array([0, 1, 2, 3, 4, 5, 5, 5])
    train, val = split(labels, 0.5, 0, NAMES, groups)
    check_partition(train, val, 8)
    assert set(labels[val]) == {0, 2}
    assert split_warnings(labels, NAMES, train, val, 0.5) == [
        "warning: no image of Species2 (3) is held out: a class needs two different images, or two groups"
    ]
    assert split_warnings(labels, NAMES, *split(labels, 0.5, 0, NAMES), 0.5) == []


def test_a_class_that_is_mostly_held_out_is_warned_of():
    """One patient of class 0 has 60 of its 69 images."""
    labels, groups = np.repeat([0, 1], [69, 100]), np.concatenate([np.zeros(60, int), np.arange(1, 110)])
    warned = set()
    for seed in range(20):
        train, val = split(labels, 0.2, seed, NAMES[:2], groups)
        held_out = (labels[val] == 0).sum()
        expected = f"warning: {held_out} of the 69 images of Species1 are held out: copies and groups stay in one part"
        lines = split_warnings(labels, NAMES[:2], train, val, 0.2)
        assert [line.partition(";")[0] for line in lines] == [expected] * int(held_out >= 60)
        warned.add(bool(lines))
    assert warned == {False, True}


def test_folds_of_a_class_of_one_image_and_its_copies_are_refused():
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 3])
    with pytest.raises(UserError, match="2 different images of each class, Species2 has 1"):
        split_fold(labels, 2, 0, 0, NAMES, groups)


@pytest.mark.parametrize("data", [Data(validation_split=0.3), Data(folds=3, fold=1)], ids=["share", "fold"])
def test_a_recipe_keeps_copies_in_one_part(leaf_folder, data):
    for species in ("Species1", "Species2"):
        for number in range(4):
            for copy in range(2):
                source = leaf_folder / species / f"{number:05d}.jpg"
                shutil.copy(source, source.with_name(f"{copy} {source.name}"))
    images = load_folder(leaf_folder)
    train, val = split_rows(data, images)
    assert len(images) == len(train) + len(val) == 40
    assert not set(images.groups[train]) & set(images.groups[val])


def test_copy_split_keeps_copies_in_one_part(leaf_folder, tmp_path):
    for number in range(4):
        source = leaf_folder / "Species1" / f"{number:05d}.jpg"
        shutil.copy(source, source.with_name(f"copy {source.name}"))
    lines = copy_split(Inputs(leaf_folder), tmp_path / "split", 0.5, 0)
    assert lines[0].startswith("warning: 4 images are copies")
    train, validation = files(tmp_path / "split" / "train"), files(tmp_path / "split" / "validation")
    assert len(train) + len(validation) == 28
    assert not set(train.values()) & set(validation.values())


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


def test_images_that_the_user_holds_out_are_the_validation_part():
    images = Images(
        np.zeros((160, 1, 1, 3), np.uint8), LABELS, NAMES, ("",) * 160, held_out=(False,) * 150 + (True,) * 10
    )
    for data in (Data(validation_split=0.25), Data(validation_split=0.0)):
        train, val = split_rows(data, images)
        check_partition(train, val)
        assert val.tolist() == list(range(150, 160))
    with pytest.raises(UserError, match="data.folds.*--validation"):
        split_rows(Data(folds=5), images)


def files(folder):
    """Relative path → bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_copy_split_copies_every_image_into_one_of_two_parts(leaf_folder, tmp_path):
    out = tmp_path / "new" / "split"
    lines = copy_split(Inputs(leaf_folder), out, 0.25, 0)
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
        copy_split(Inputs(leaf_folder), tmp_path / name, 0.25, seed)
    one, same, other = (files(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_copy_split_reports_skipped_files(leaf_folder, tmp_path):
    (leaf_folder / "Species1" / "notes.txt").write_text("oak leaves")
    lines = copy_split(Inputs(leaf_folder), tmp_path / "split", 0.25, 0)
    assert len(lines) == 2
    assert "notes.txt" in lines[0]
    assert not list((tmp_path / "split").rglob("notes.txt"))


def test_copy_split_of_a_table_makes_class_folders(leaf_folder, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    rows = ["image,label"]
    for path in sorted(leaf_folder.glob("*/*.jpg")):
        name = f"{path.parent.name}{path.name}"
        path.rename(folder / name)
        rows.append(f"{name},{path.parent.name}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    copy_split(Inputs(folder, labels=tmp_path / "labels.csv"), tmp_path / "split", 0.25, 0)
    copied = {**files(tmp_path / "split" / "train"), **files(tmp_path / "split" / "validation")}
    assert copied == {f"{name[:8]}/{name}": content for name, content in files(folder).items()}
    assert len(files(tmp_path / "split" / "validation")) == 6


def test_copy_split_of_corrected_labels_can_be_read_again(leaf_folder, tmp_path):
    """The class folders have the labels before their correction, so none of them may be left within a class."""
    rows = [(path.relative_to(leaf_folder), path.parent.name) for path in sorted(leaf_folder.glob("*/*.jpg"))]
    other = {"Species1": "Species2", "Species2": "Species1"}
    corrected = [(path, other.get(name, name) if number % 3 else name) for number, (path, name) in enumerate(rows)]
    (tmp_path / "labels.csv").write_text("image,label\n" + "".join(f"{path},{name}\n" for path, name in corrected))
    copy_split(Inputs(leaf_folder, labels=tmp_path / "labels.csv"), tmp_path / "split", 0.25, 0)
    copied = {}
    for part in ("train", "validation"):
        images = load_folder(tmp_path / "split" / part)
        for path, label in zip(images.paths, images.labels, strict=True):
            copied[Path(path).name] = images.names[label]
    assert copied == {"__".join(path.parts): name for path, name in corrected}


def test_copy_split_overwrites_nothing(leaf_folder, tmp_path):
    out = tmp_path / "split"
    out.mkdir()
    (out / "kept.txt").write_text("mine")
    with pytest.raises(UserError, match="--out.*exists"):
        copy_split(Inputs(leaf_folder), out, 0.25, 0)
    assert [path.name for path in out.iterdir()] == ["kept.txt"]


def test_copy_split_leaves_nothing_when_copying_fails(leaf_folder, tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr("training.data.copy_split.shutil", SimpleNamespace(copy2=fail))
    with pytest.raises(OSError, match="No space") as error:
        copy_split(Inputs(leaf_folder), tmp_path / "split", 0.25, 0)
    assert error.value.filename == str(tmp_path / "split")
    assert [path.name for path in tmp_path.iterdir()] == ["leaves"]
