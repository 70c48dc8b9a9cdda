"""benchmarks.aspect: which part of an image is cut out, how it is made square, and what the folds train on."""

import numpy as np
import pytest
from PIL import Image
from sklearn.preprocessing import StandardScaler

from benchmarks import aspect

pytestmark = pytest.mark.unit


def numbered(height, width):
    """An image whose pixels are (row, column, 7): uint8 [h, w, 3]."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)


def place_of(part, pixels):
    """(top, left, height, width) of a part that has been cut out."""
    part = np.asarray(part)
    (top, left, _), (height, width) = part[0, 0], part.shape[:2]
    np.testing.assert_array_equal(part, pixels[top : top + height, left : left + width])
    return int(top), int(left), height, width


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(12, 12, (2, 0, 8, 12)), (4, 12, (0, 3, 4, 6)), (12, 3, (5, 0, 2, 3))]
)
def test_landscape_is_the_largest_part_of_three_to_two_in_the_center(height, width, expected):
    pixels = numbered(height, width)
    (part,) = aspect.cut(pixels[None], "landscape")
    assert place_of(part, pixels) == expected


def test_turned_is_landscape_or_portrait_in_the_center():
    pixels = numbered(12, 12)
    parts = aspect.cut(np.stack([pixels] * 20), "turned")
    assert {place_of(part, pixels) for part in parts} == {(2, 0, 8, 12), (0, 2, 12, 8)}


def test_mixed_is_the_largest_part_of_a_random_aspect_at_a_random_place():
    pixels = numbered(100, 100)
    places = [place_of(part, pixels) for part in aspect.cut(np.stack([pixels] * 200), "mixed")]
    heights, widths = np.array(places)[:, 2:].T
    assert (np.maximum(heights, widths) == 100).all()
    assert 62 <= min(heights.min(), widths.min()) < 67  # 100 / 1.6 = 62.5
    assert 0.4 < (heights < widths).mean() < 0.6
    free = np.array([(top + left) / (200 - height - width) for top, left, height, width in places if height != width])
    assert free.min() < 0.05 and free.max() > 0.9 and 0.4 < free.mean() < 0.6
    assert places == [place_of(part, pixels) for part in aspect.cut(np.stack([pixels] * 200), "mixed")]


def test_crop_is_the_square_in_the_center(monkeypatch):
    monkeypatch.setattr(aspect, "SIZE", 4)  # as large as the square, so that no pixel is computed anew
    pixels = numbered(4, 7)
    np.testing.assert_array_equal(aspect.crop(Image.fromarray(pixels)), pixels[:, 1:5])
    pixels = numbered(6, 4)
    np.testing.assert_array_equal(aspect.crop(Image.fromarray(pixels)), pixels[1:5])


def test_pad_is_the_whole_image_in_the_center_of_its_mean_color(monkeypatch):
    monkeypatch.setattr(aspect, "SIZE", 7)
    pixels = numbered(3, 7)
    padded = np.asarray(aspect.pad(Image.fromarray(pixels)))
    np.testing.assert_array_equal(padded[2:5], pixels)
    assert (padded[[0, 1, 5, 6]] == (1, 3, 7)).all()
    pixels = numbered(7, 4)
    padded = np.asarray(aspect.pad(Image.fromarray(pixels)))
    np.testing.assert_array_equal(padded[:, 1:5], pixels)
    assert (padded[:, [0, 5, 6]] == (3, 1, 7)).all()


@pytest.mark.parametrize("way", aspect.WAYS)
def test_every_way_gives_the_size_of_the_network(way):
    assert aspect.WAYS[way](Image.fromarray(numbered(30, 20))).size == (aspect.SIZE, aspect.SIZE)


class Recorded(StandardScaler):
    """A scaler that keeps the numbers of the rows that it is fitted to and that it scales."""

    made = []

    def fit(self, x):
        self.made.append(self)
        self.fitted, self.scaled = x[:, -1].tolist(), []
        return super().fit(x)

    def transform(self, x):
        self.scaled.append(x[:, -1].tolist())
        return super().transform(x)


def test_folds_train_and_scale_on_other_groups_than_they_are_measured_on(monkeypatch):
    """Two classes that one feature tells apart. The last feature is the row's number, in both views."""
    monkeypatch.setattr(aspect, "StandardScaler", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    count = 48
    labels, groups = np.arange(count) % 2, np.arange(count) // 4 * 2 + np.arange(count) % 2
    rng = np.random.default_rng(0)
    views = [np.column_stack([labels * 9 + rng.normal(size=count), np.arange(count)]) for _ in range(2)]
    assert aspect.in_folds(views, labels, groups) == [1.0] * aspect.FOLDS
    measured = []
    for scaler in Recorded.made:
        train, *val = scaler.scaled
        assert scaler.fitted == train == [*train[: len(train) // 2]] * 2
        assert val[0] == val[1]
        assert len(set(train)) + len(val[0]) == count
        assert not set(groups[np.int64(train)]) & set(groups[np.int64(val[0])])
        measured += val[0]
    assert sorted(measured) == list(range(count))
    shuffled = rng.permutation(labels)
    assert np.mean(aspect.in_folds(views, shuffled, np.arange(count))) < 0.8


def test_views_are_averaged():
    """One of the views says nothing about the images, the other one does."""
    count = 48
    labels = np.arange(count) % 2
    told = labels[:, None] * 9.0
    assert np.mean(aspect.in_folds([told, told], labels, np.arange(count))) == 1
    assert np.mean(aspect.in_folds([told * 0, told], labels, np.arange(count))) == 1
    assert np.mean(aspect.in_folds([told, told * 0], labels, np.arange(count))) == 1
    assert np.mean(aspect.in_folds([told * 0], labels, np.arange(count))) == 0.5
