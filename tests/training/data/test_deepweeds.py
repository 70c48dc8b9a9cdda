"""Rebuilding the competition's class folders from DeepWeeds, compared with an independent implementation."""

import csv
import io
import random
import shutil
import zipfile

import keras
import pytest
from PIL import Image

from common.errors import UserError
from competition.synthetic import draw_images
from training.data import deepweeds
from training.data.deepweeds import COUNTS, IMAGES, PHASE1, check_count, choose, download, rebuild

pytestmark = pytest.mark.integration
FEW = {"Lantana": (4, 5), "Snake weed": (3, 4)}


@pytest.fixture(scope="module")
def deepweeds_source(tmp_path_factory):
    """24 images of 256×256 and their labels: ten of each species in FEW and four negatives."""
    folder = tmp_path_factory.mktemp("deepweeds")
    (folder / "images").mkdir()
    rows = []
    for number, pixels in enumerate(draw_images(24, side=256)):
        name = f"2017{(number * 7) % 24:04d}-{number % 3}.jpg"
        Image.fromarray(pixels).save(folder / "images" / name, quality=80)
        rows.append((name, "Negative" if number >= 20 else list(FEW)[number % 2]))
    random.Random(1).shuffle(rows)
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("Filename", "Label", "Species"), *((name, 0, species) for name, species in rows)])
    return folder


@pytest.fixture
def copied_source(deepweeds_source, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(deepweeds_source, tmp_path / "source")


def expected_files(folder):
    """Relative path → bytes, as the competition's images are specified."""
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    files = {}
    for position, (species, (n, m)) in enumerate(FEW.items(), 1):
        names = sorted(row["Filename"] for row in rows if row["Species"] == species)
        random.Random(f"an2dl-2022/{species}").shuffle(names)
        test = names[n : n + m]
        first = round(0.3 * m)
        for part, chosen in (("train", names[:n]), ("phase1", test[:first]), ("phase2", test[first:])):
            for i, name in enumerate(chosen):
                buffer = io.BytesIO()
                small = Image.open(folder / "images" / name).convert("RGB").resize((96, 96), Image.BICUBIC)
                small.save(buffer, "JPEG", quality=95, subsampling=0)
                files[f"{part}/Species{position}/{i:05d}.jpg"] = buffer.getvalue()
    return files


def test_every_file_equals_the_specified_one(deepweeds_source, tmp_path):
    out = tmp_path / "new" / "leaves"
    rebuild(deepweeds_source / "images", deepweeds_source / "labels.csv", out, FEW)
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    expected = expected_files(deepweeds_source)
    assert len(expected) == 16
    assert found.keys() == expected.keys()
    assert found == expected
    assert [path.name for path in out.parent.iterdir()] == ["leaves"]


def test_no_image_is_used_twice(deepweeds_source):
    names = [name for *_, name in choose(deepweeds_source / "labels.csv", FEW)]
    assert len(names) == len(set(names)) == 16


def test_counts_are_the_competition_s():
    assert len(COUNTS) == 8
    assert sum(train for train, _ in COUNTS.values()) == 3542
    assert sum(test for _, test in COUNTS.values()) == 3543
    assert sum(map(sum, COUNTS.values())) < IMAGES


def test_counts_are_those_of_the_images_at_hand(leaves):
    for position, (train, test) in enumerate(COUNTS.values(), 1):
        assert len(list((leaves / "train" / f"Species{position}").glob("*.jpg"))) == train
        assert len(list((leaves / "phase1" / f"Species{position}").glob("*.jpg"))) == round(PHASE1 * test)


def too_few(folder):
    return {"Lantana": (4, 7), "Snake weed": (3, 4)}, "11 images of Lantana, got 10"


def no_such_species(folder):
    return {"Oak": (1, 1)}, "2 images of Oak, got 0"


def missing_image(folder):
    name = choose(folder / "labels.csv", FEW)[-1][-1]
    (folder / "images" / name).unlink()
    return FEW, f"1 of 16 images .* {name}"


def missing_folder(folder):
    shutil.rmtree(folder / "images")
    return FEW, "16 of 16 images are not in .*images"


def damaged_image(folder):
    path = folder / "images" / choose(folder / "labels.csv", FEW)[-1][-1]
    path.write_bytes(path.read_bytes()[:500])
    return FEW, path.name


def missing_labels(folder):
    (folder / "labels.csv").unlink()
    return FEW, "labels.csv"


def other_columns(folder):
    (folder / "labels.csv").write_text("name,kind\na.jpg,Lantana\n")
    return FEW, "Filename and Species"


def empty_labels(folder):
    (folder / "labels.csv").write_text("")
    return FEW, "Filename and Species"


def binary_labels(folder):
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00\x01" * 50)
    return FEW, "labels.csv"


FAULTS = [
    too_few,
    no_such_species,
    missing_image,
    missing_folder,
    damaged_image,
    missing_labels,
    other_columns,
    empty_labels,
    binary_labels,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_is_left(copied_source, tmp_path, fault):
    counts, named = fault(copied_source)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=named) as error:
        rebuild(copied_source / "images", copied_source / "labels.csv", tmp_path / "out" / "leaves", counts)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_existing_folder_is_not_overwritten(deepweeds_source, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        rebuild(deepweeds_source / "images", deepweeds_source / "labels.csv", tmp_path, FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("count", [0, 3])
def test_another_number_of_images_is_refused(tmp_path, count):
    for number in range(count):
        (tmp_path / f"{number}.jpg").touch()
    with pytest.raises(UserError, match=f"17,509 images.*got {count}"):
        check_count(tmp_path)


@pytest.fixture
def published(deepweeds_source, tmp_path, monkeypatch):
    """Makes the synthetic images those that are downloaded."""
    with zipfile.ZipFile(tmp_path / "published.zip", "w") as archive:
        for path in sorted((deepweeds_source / "images").iterdir()):
            archive.write(path, path.name)
    monkeypatch.setattr(deepweeds, "IMAGES", 24)
    addresses = {
        "images.zip": (tmp_path / "published.zip").as_uri(),
        "labels.csv": (deepweeds_source / "labels.csv").as_uri(),
    }
    monkeypatch.setattr(deepweeds, "ARCHIVES", addresses)


@pytest.mark.parametrize("exists", [True, False])
def test_download_unpacks_into_the_given_folder(deepweeds_source, tmp_path, published, exists):
    folder = tmp_path / "kept"
    if exists:
        folder.mkdir()
    images, labels = download(folder)
    assert images.is_relative_to(folder)
    assert labels.is_relative_to(folder)
    assert labels.read_bytes() == (deepweeds_source / "labels.csv").read_bytes()
    assert {path.name: path.read_bytes() for path in images.iterdir()} == {
        p.name: p.read_bytes() for p in (deepweeds_source / "images").iterdir()
    }


def test_download_keeps_existing_files(tmp_path, published):
    (tmp_path / "kept").mkdir()
    first = download(tmp_path / "kept")
    (tmp_path / "published.zip").unlink()
    assert download(tmp_path / "kept") == first


def test_an_incomplete_archive_is_refused(tmp_path, published, monkeypatch):
    monkeypatch.setattr(deepweeds, "IMAGES", 25)
    (tmp_path / "kept").mkdir()
    with pytest.raises(UserError, match="25 images.*got 24"):
        download(tmp_path / "kept")


@pytest.mark.parametrize("reason", [OSError("URL fetch failure:\nno route"), TimeoutError()])
def test_a_failed_download_says_where_to_get_it_by_hand(tmp_path, monkeypatch, reason):
    def get_file(*args, **kwargs):
        raise reason

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(UserError, match="github.com/AlexOlsen/DeepWeeds") as error:
        download(tmp_path)
    assert "\n" not in str(error.value)
