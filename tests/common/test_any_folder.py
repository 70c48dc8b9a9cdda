"""Whatever is in a folder, it is loaded with the right classes, or refused in one printable line."""

import os
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from pictures import DAMAGED_METADATA, PICTURES, encoded
from PIL import Image

from common.errors import UserError
from common.folders import is_hidden, printable
from common.image_file import decode
from common.images import load_folder

pytestmark = pytest.mark.unit

CLASS_NAMES = [
    "Oak",
    "Ash",
    "Species2",
    "Species10",
    "①",
    "10²",
    "10",
    "train",
    "test",
    "validation",
    "葉",
    "a b",
    "-x",
]
FILE_NAMES = ["1.jpg", "1.JPG", "10²", "①.png", "Thumbs.db", ".hidden.png", "@eaDir", "e\u0301.png", "\u00e9.png"]
CONTENTS = {
    **{name: data for name, (data, _) in PICTURES.items()},
    **{name: data for name, (data, _) in DAMAGED_METADATA.items() if "large" not in name and "many" not in name},
    **{f"noise {n}": encoded(Image.effect_noise((8 + n, 9), 90), "PNG") for n in range(20)},
    **{f"own noise {n}": encoded(Image.effect_noise((30 + n, 9), 90), "PNG") for n in range(4)},
    "text": b"no image",
    "empty": b"",
    "cut": PICTURES["RGB.png"][0][:80],
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
}
names = st.one_of(
    st.sampled_from(FILE_NAMES),
    st.binary(min_size=1, max_size=12).map(lambda data: os.fsdecode(data.replace(b"/", b"_").replace(b"\0", b"_"))),
    st.text(min_size=1, max_size=8).map(lambda text: text.replace("/", "_").replace("\0", "_")),
)
class_names = st.integers(0, 15).flatmap(lambda number: st.sampled_from(CLASS_NAMES) if number else names)
good = st.sampled_from([name for name in sorted(CONTENTS) if name.startswith("noise")])
contents = st.one_of(good, st.sampled_from(sorted(CONTENTS)))
files = st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), contents, min_size=1, max_size=4)


@st.composite
def folders(draw):
    """{class name: {path as a tuple: content}}, in most cases with a readable image in each class."""
    tree = draw(st.dictionaries(class_names, files, min_size=draw(st.sampled_from([1, 2, 2, 3])), max_size=4))
    if draw(st.integers(0, 3)):
        for number, contents_of_class in enumerate(tree.values()):
            contents_of_class[("good.png",)] = f"own noise {number}"
    return tree


sizes = st.one_of(st.none(), st.tuples(st.integers(1, 40), st.integers(1, 40)))


def write(root, tree):
    """Writes {class name: {path as a tuple: content}}. Returns the files that could be written."""
    written = {}
    for name, contents in tree.items():
        for path, content in contents.items():
            target = Path(root, name, *path)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.is_dir():
                    target.write_bytes(CONTENTS[content])
                    written[str(target)] = content
            except (OSError, UnicodeEncodeError):  # for example "..", or a surrogate that no file name has
                continue
    return written


def check(tree, size):
    with tempfile.TemporaryDirectory(prefix="any-") as root:
        data = Path(root, "data")
        data.mkdir()
        written = {path: content for path, content in write(data, tree).items() if Path(path).is_relative_to(data)}
        try:
            images = load_folder(data, size)
        except UserError as error:
            assert printable(error) == str(error)
            return
        check_images(images, data, written)


def check_images(images, data, written):
    """Every image has its own class and pixels, and every file is loaded or mentioned."""
    assert all(printable(note) == note for note in images.notes)
    shape = images.images.shape[1:3]
    for path, label, pixels in zip(images.paths, images.labels, images.images, strict=True):
        parts = Path(path).relative_to(data).parts
        assert parts[0] == images.names[label]
        assert not any(map(is_hidden, parts))
        np.testing.assert_array_equal(pixels, np.asarray(decode(Path(path).read_bytes(), shape).image))
    visible = {path for path in written if not any(map(is_hidden, Path(path).relative_to(data).parts))}
    in_classes = {path for path in visible if len(Path(path).relative_to(data).parts) > 1}
    left_out = in_classes - set(images.paths)
    assert all(any(f"skipped {printable(path)}: " in note for note in images.notes) for path in left_out)
    assert np.array_equal(np.unique(images.labels), np.arange(len(images.names)))
    groups = images.groups
    assert all(images.labels[row] == images.labels[group] for row, group in enumerate(groups))


COMMON = {"deadline": None, "suppress_health_check": list(hypothesis.HealthCheck), "database": None}


@hypothesis.given(folders(), sizes)
@hypothesis.settings(max_examples=200, derandomize=True, **COMMON)
def test_any_folder_is_loaded_or_refused(tree, size):
    check(tree, size)


@pytest.mark.slow
@hypothesis.given(folders(), sizes)
@hypothesis.settings(max_examples=10_000, **COMMON)
def test_ten_thousand_folders_are_loaded_or_refused(tree, size):
    check(tree, size)
