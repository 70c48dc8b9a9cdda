"""Groups of images that a split keeps in one part."""

import numpy as np
import pytest

from common.errors import UserError
from common.images import load_folder
from competition.synthetic import draw_folder
from training.data.groups import warnings_of_groups, with_groups, write_groups
from training.data.split import split, split_fold

pytestmark = pytest.mark.unit


@pytest.fixture
def grouped_data(tmp_path):
    draw_folder(tmp_path / "leaves", 8, classes=2, side=16)
    return tmp_path / "leaves"


def test_written_groups_are_read_again_and_kept_together(grouped_data, tmp_path):
    images = load_folder(grouped_data)
    write_groups(tmp_path / "groups.csv", images, [number // 2 for number in range(16)], grouped_data)
    grouped = with_groups(images, tmp_path / "groups.csv", grouped_data)
    assert len(np.unique(grouped.groups)) == 8
    train, val = split(grouped.labels, 0.25, 0, groups=grouped.groups)
    assert not set(grouped.groups[train]) & set(grouped.groups[val])
    assert len(val) == 4
    assert grouped.rows(val).group_names == tuple(grouped.group_names[row] for row in val)


def test_blanks_around_paths_do_not_matter(grouped_data, tmp_path):
    (grouped_data / "Species1").rename(grouped_data / " Species1")
    images = load_folder(grouped_data)
    write_groups(tmp_path / "groups.csv", images, range(16), grouped_data)
    assert with_groups(images, tmp_path / "groups.csv", grouped_data).group_names == tuple(map(str, range(16)))


def test_a_group_that_may_stand_for_no_group_is_warned_of(grouped_data, tmp_path):
    images = load_folder(grouped_data)
    write_groups(tmp_path / "groups.csv", images, ["NaN", *range(15)], grouped_data)
    warning = "warning: the group NaN of --groups may stand for images without a group; if so, leave their cells empty"
    assert warnings_of_groups(with_groups(images, tmp_path / "groups.csv", grouped_data)) == [warning]
    write_groups(tmp_path / "groups.csv", images, ["", *range(15)], grouped_data)
    assert warnings_of_groups(with_groups(images, tmp_path / "groups.csv", grouped_data)) == []


def test_a_group_may_have_images_of_several_classes(grouped_data, tmp_path):
    """For example photographs of one patient, before and after an illness."""
    images = load_folder(grouped_data)
    patients = [number % 8 // 2 for number in range(16)]
    write_groups(tmp_path / "groups.csv", images, patients, grouped_data)
    grouped = with_groups(images, tmp_path / "groups.csv", grouped_data)
    assert len(np.unique(grouped.groups)) == 4
    for parts in (split(grouped.labels, 0.25, 0, groups=grouped.groups), split_fold(grouped.labels, 4, 3, 0)):
        assert sorted(np.concatenate(parts)) == list(range(16))
    train, val = split(grouped.labels, 0.25, 0, groups=grouped.groups)
    assert not {patients[row] for row in train} & {patients[row] for row in val}
    assert len(val) == 4


def test_images_with_an_empty_group_belong_to_no_other(grouped_data, tmp_path):
    images = load_folder(grouped_data)
    write_groups(tmp_path / "groups.csv", images, ["series"] * 3 + [""] * 13, grouped_data)
    groups = with_groups(images, tmp_path / "groups.csv", grouped_data).groups
    assert groups.tolist() == [0, 0, 0, *range(3, 16)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", ", "])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_of_spreadsheets_are_read(grouped_data, tmp_path, end, delimiter, mark):
    """With a byte order mark, semicolons, other line ends, and spaces around a group."""
    paths = [path.relative_to(grouped_data).as_posix() for path in grouped_data.rglob("*.jpg")]
    lines = [f"path{delimiter}group"]
    lines += [f"{path}{delimiter}{'x' if row % 2 else ' x '}" for row, path in enumerate(paths)]
    (tmp_path / "groups.csv").write_bytes((mark + end.join(lines)).encode())
    images = with_groups(load_folder(grouped_data), tmp_path / "groups.csv", grouped_data)
    assert set(images.group_names) == {"x"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,group\nSpecies1/00000.jpg,a\n", "lacks 15, the first is Species1/00001.jpg"),
        ("file,scene\na,b\n", "columns path and group, .* has file, scene; rename them"),
        ("", "columns path and group, .* has no header; rename them"),
        (None, "must be a CSV file, got .*groups.csv: No such file or directory$"),
        (b"path,group\n\xff\xfe,a\n", "lacks 16"),
        ("path,group\nSpecies1/00000.jpg\n", "has no group for Species1/00000.jpg"),
        ("path,group\na.jpg,x\na.jpg,y\n", "one group for each path, .* has 'x' and 'y' for a.jpg"),
    ],
    ids=["missing images", "other columns", "empty", "no file", "not UTF-8", "short row", "two groups"],
)
def test_wrong_tables_are_refused(grouped_data, tmp_path, text, words):
    if text is not None:
        (tmp_path / "groups.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words):
        with_groups(load_folder(grouped_data), tmp_path / "groups.csv", grouped_data)
