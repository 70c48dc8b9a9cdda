"""Groups of images that a split keeps in one part."""

import numpy as np
import pytest

from common.errors import UserError
from common.groups import with_groups, write_groups
from common.images import load_folder
from competition.synthetic import draw_folder
from training.data.split import split

pytestmark = pytest.mark.unit


@pytest.fixture
def grouped_data(tmp_path):
    draw_folder(tmp_path / "leaves", 8, classes=2, side=16)
    return tmp_path / "leaves"


def test_written_groups_are_read_again_and_kept_together(grouped_data, tmp_path):
    images = load_folder(grouped_data)
    write_groups(tmp_path / "groups.csv", images, [number // 2 % 4 for number in range(16)], grouped_data)
    grouped = with_groups(images, tmp_path / "groups.csv", grouped_data)
    assert len(np.unique(grouped.groups)) == 8  # four in each class, although their names are the same
    train, val = split(grouped.labels, 0.25, 0, groups=grouped.groups)
    assert not set(grouped.groups[train]) & set(grouped.groups[val])
    assert len(val) == 4
    assert grouped.rows(val).scenes == tuple(grouped.scenes[row] for row in val)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,group\nSpecies1/00000.jpg,a\n", "lacks 15, the first is Species1/00001.jpg"),
        ("file,scene\na,b\n", "columns path and group"),
        (None, "columns path and group"),
        (b"path,group\n\xff\xfe,a\n", "lacks 16"),
    ],
    ids=["missing images", "other columns", "no file", "not UTF-8"],
)
def test_wrong_tables_are_refused(grouped_data, tmp_path, text, words):
    if text is not None:
        (tmp_path / "groups.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words):
        with_groups(load_folder(grouped_data), tmp_path / "groups.csv", grouped_data)
