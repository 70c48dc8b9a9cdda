"""competition/kaggle.py and --layout kaggle: a sample_submission.csv filled in, id by id, with the model's own answers."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import NAMES, load_module, tiny_network, tiny_submission
from PIL import Image

import build_submission
from competition.drawings import draw_images, draw_leaf
from competition.kaggle import find_images, read_sample, write_csv
from training.errors import UserError

COUNT = 40  # more than one batch


@pytest.fixture(scope="module")
def network():
    return load_module(tiny_submission() / "model.py", "tiny_model").model(tiny_submission())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images 100.png, 101.png, …, all of one size."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(draw_images(COUNT, seed=7)):
        Image.fromarray(image).save(folder / f"{100 + number}.png")
    return folder


@pytest.fixture(scope="module")
def truth(network, images):
    """id without ending → probabilities of the model for that image."""
    paths = sorted(images.iterdir())
    every = network.predict_proba(np.stack([np.asarray(Image.open(path)) for path in paths]))
    assert len(set(every.argmax(1))) > 3
    return {path.stem: row for path, row in zip(paths, every, strict=True)}


def write_sample(path, ids, header="id,label", value="Species1", end="\n", bom=""):
    path.write_bytes((bom + "".join(line + end for line in (header, *(f"{name},{value}" for name in ids)))).encode())
    return path


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def shuffled(ids, seed=1):
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(ids))]


# --- the three kinds of answers


def test_names(network, images, truth, tmp_path):
    ids = shuffled(truth)
    sample = write_sample(tmp_path / "sample.csv", ids, "image,Label of it")
    path, notes = write_csv(network, images, sample, tmp_path / "new" / "a.csv")
    assert (path, notes) == (tmp_path / "new" / "a.csv", [])
    assert table(path) == [["image", "Label of it"], *([name, NAMES[truth[name].argmax()]] for name in ids)]
    assert path.read_bytes().count(b"\n") == COUNT + 1
    assert b"\r" not in path.read_bytes()


def test_numbers(network, images, truth, tmp_path):
    ids = shuffled(truth)
    path, _ = write_csv(network, images, write_sample(tmp_path / "sample.csv", ids, value="0"), tmp_path / "a.csv")
    assert table(path) == [["id", "label"], *([name, str(truth[name].argmax())] for name in ids)]


def test_probabilities_in_the_order_of_the_samples_columns(network, images, truth, tmp_path):
    ids, columns = shuffled(truth), shuffled(NAMES, seed=2)
    assert columns != list(NAMES)
    sample = write_sample(tmp_path / "sample.csv", ids, ",".join(["id", *columns]), ",".join(["0.125"] * len(NAMES)))
    header, *rows = table(write_csv(network, images, sample, tmp_path / "a.csv")[0])
    assert header == ["id", *columns]
    assert [row[0] for row in rows] == ids
    got = np.array([row[1:] for row in rows], float)
    expected = np.array([[truth[name][NAMES.index(column)] for column in columns] for name in ids])
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert np.abs(got.sum(1) - 1).max() < 1e-4


def test_a_part_of_the_images(network, images, truth, tmp_path):
    ids = shuffled(truth)[:5]
    path, notes = write_csv(network, images, write_sample(tmp_path / "sample.csv", ids), tmp_path / "a.csv")
    assert [row[0] for row in table(path)[1:]] == ids
    assert notes == [f"{COUNT - 5} other files in {images} are not in the sample"]


def test_images_of_any_size_and_mode(network, tmp_path):
    """The model reads image files too: the answers for the paths are the measure."""
    folder, rng = tmp_path / "images", np.random.default_rng(5)
    folder.mkdir()
    modes = ("RGB", "L", "RGBA", "P", "CMYK", "1", "LA", "RGB")
    for number, mode in enumerate(modes):
        image = draw_leaf(number, rng, 60 + 20 * number).convert(mode)
        image.resize((50 + 30 * number, 96)).save(folder / f"{number}.{'tif' if mode == 'CMYK' else 'png'}")
    deep = np.asarray(draw_leaf(3, rng).convert("L"), np.uint16) * 257
    Image.fromarray(deep).save(folder / "8.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    draw_leaf(4, rng, 120).crop((0, 0, 120, 70)).save(folder / "9.jpg", exif=turned)
    ids = [path.name for path in sorted(folder.iterdir())]
    sample = write_sample(tmp_path / "sample.csv", ids, ",".join(["id", *NAMES]), ",".join("0" * len(NAMES)))
    rows = table(write_csv(network, folder, sample, tmp_path / "a.csv")[0])[1:]
    expected = [network.predict_proba(str(folder / name))[0] for name in ids]
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float), expected, atol=2e-6)


# --- ids and files


@pytest.mark.parametrize("ids", [["7.jpg", "8.jpg"], ["7", "8"], ["a/7.jpg", "b/c/8.jpg"], ["a/7", "b/c/8"], ["8.jpg", "7"]], ids=str)
def test_ids_with_and_without_ending_and_folder(tmp_path, ids):
    for name in ("a/7.jpg", "b/c/8.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    found, others = find_images(tmp_path, ids)
    assert [path.stem for path in found] == [Path(name).stem for name in ids]
    assert others == 0


def test_the_same_name_in_two_folders(tmp_path):
    for name in ("a/7.jpg", "b/7.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    assert find_images(tmp_path, ["b/7.jpg", "a/7.jpg"])[0] == [tmp_path / "b/7.jpg", tmp_path / "a/7.jpg"]
    with pytest.raises(UserError, match=r"the id 7 fits .*a/7\.jpg and .*b/7\.jpg; keep one of them"):
        find_images(tmp_path, ["7"])


def test_dots_in_a_name(tmp_path):
    for name in ("leaf.1.jpg", "leaf.2.jpg", "plain"):
        (tmp_path / name).write_bytes(b"")
    found, _ = find_images(tmp_path, ["leaf.2", "leaf.1.jpg", "plain"])
    assert [path.name for path in found] == ["leaf.2.jpg", "leaf.1.jpg", "plain"]


def test_an_id_in_two_files(tmp_path):
    for name in ("7.jpg", "7.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="the id 7 fits"):
        find_images(tmp_path, ["7"])
    assert find_images(tmp_path, ["7.png"]) == ([tmp_path / "7.png"], 1)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    (tmp_path / "7.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="no image for 2 of the sample's 3 ids, the first is 8"):
        find_images(tmp_path, ["7", "8", "9"])


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="--images: no folder at"):
        find_images(tmp_path / "nowhere", ["7"])


def test_hidden_files_are_no_images(tmp_path):
    for name in ("7.jpg", "._7.jpg", ".DS_Store", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert find_images(tmp_path, ["7"]) == ([tmp_path / "7.jpg"], 1)


# --- the sample


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["plain", "BOM"])
def test_the_sample_as_windows_writes_it(tmp_path, end, bom):
    sample = read_sample(write_sample(tmp_path / "s.csv", ["a.jpg", "b.jpg"], end=end, bom=bom), NAMES)
    assert (sample.header, sample.ids, sample.kind) == (("id", "label"), ("a.jpg", "b.jpg"), "names")


def test_quotes_and_commas(network, images, truth, tmp_path):
    shutil.copy(images / "100.png", tmp_path / "a, b.png")
    (tmp_path / "s.csv").write_text('"the ""id""",label\n"a, b.png",Species2\n')
    path, _ = write_csv(network, tmp_path, tmp_path / "s.csv", tmp_path / "out" / "a.csv")
    assert table(path) == [['the "id"', "label"], ["a, b.png", NAMES[truth["100"].argmax()]]]


def test_blank_lines_are_passed_over(tmp_path):
    (tmp_path / "s.csv").write_text("id,label\n7,0\n\n8,0\n\n")
    assert read_sample(tmp_path / "s.csv", NAMES).ids == ("7", "8")


WRONG = {
    "empty": ("", "needs a header"),
    "header only": ("id,label\n", "a line for each image"),
    "header and blank lines": ("id,label\n\n\n", "a line for each image"),
    "one column": ("id\n7\n", "two or more columns"),
    "an id twice": ("id,label\n7,0\n8,0\n7,0\n", "the id 7 more than once"),
    "a short line": ("id,label\n7,0\n8\n", "line 3 has 1 columns, the header has 2"),
    "a long line": ("id,label\n7,0,0\n", "line 2 has 3 columns, the header has 2"),
    "another class": ("id,label\n7,Species1\n8,Species9\n", "'Species9', neither one of the model's classes nor a number below 8"),
    "number out of range": ("id,label\n7,8\n", "'8', neither"),
    "negative number": ("id,label\n7,-1\n", "'-1', neither"),
    "no value": ("id,label\n7,\n", "'', neither"),
    "other columns": ("id,Species1,Rose\n7,0.5,0.5\n", "the model's classes differ in Rose, Species2"),
    "a column too few": (f"id,{','.join(NAMES[:7])}\n7{',0' * 7}\n", "differ in Species8"),
    "a column twice": (f"id,{','.join(NAMES)},Species1\n7{',0' * 9}\n", "differ in number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_samples_that_cannot_be_filled_in(network, images, tmp_path, case):
    text, reason = WRONG[case]
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        write_csv(network, images, tmp_path / "s.csv", tmp_path / "out" / "a.csv")
    assert "--sample" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["missing", "folder", "no text"])
def test_sample_that_cannot_be_read(tmp_path, case):
    path = tmp_path / "s.csv"
    if case == "folder":
        path.mkdir()
    elif case == "no text":
        path.write_bytes(b"id,label\n\xff\xfe,0\n")
    with pytest.raises(UserError, match=r"--sample .*s\.csv: .*; give the competition's sample_submission\.csv"):
        read_sample(path, NAMES)


# --- the command


@pytest.fixture
def command(monkeypatch, capsys):
    """build_submission.py with the tiny submission in the place of the committed one: (code, output, errors)."""
    monkeypatch.setattr(build_submission, "SOURCE", tiny_submission())

    def run(*arguments):
        code = build_submission.main(["--layout", "kaggle", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "dist" / "submission.csv"
    path.parent.mkdir()
    path.write_text("the old answers")
    return path


def kept(old):
    return old.read_text() == "the old answers" and [path.name for path in old.parent.iterdir()] == [old.name]


def test_the_whole_command(command, images, truth, old, tmp_path):
    ids = shuffled(truth)[:35]
    sample = write_sample(tmp_path / "s.csv", [f"{name}.png" for name in ids])
    code, out, err = command("--images", images, "--sample", sample, "--out", old, "--competition", "leaves-2")
    assert (code, err) == (0, "")
    assert table(old)[1:] == [[f"{name}.png", NAMES[truth[name].argmax()]] for name in ids]
    assert [path.name for path in old.parent.iterdir()] == [old.name]
    note, line = out.splitlines()
    assert note == f"5 other files in {images} are not in the sample"
    words = shlex.split(line.split("hand it in: ")[1])
    assert words == ["kaggle", "competitions", "submit", "-c", "leaves-2", "-f", str(old), "-m", "message"]


def test_the_printed_command_works_for_a_path_with_blanks(command, images, tmp_path):
    sample, target = write_sample(tmp_path / "s.csv", ["100", "101"]), tmp_path / "my answers" / "it's.csv"
    code, out, _ = command("--images", images, "--sample", sample, "--out", target)
    assert code == 0
    assert str(target) in shlex.split(out.splitlines()[-1].split("hand it in: ")[1])


def test_without_a_name_the_place_of_it_is_shown(command, images, old, tmp_path):
    code, out, _ = command("--images", images, "--sample", write_sample(tmp_path / "s.csv", ["100"]), "--out", old)
    assert code == 0
    assert "kaggle competitions submit -c COMPETITION -f " in out


def failed(command, old, *arguments):
    """The one line of error; the old file must be as it was."""
    code, out, err = command(*arguments, "--out", old)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: .+\n", err)
    assert kept(old)
    return err


@pytest.mark.parametrize("given", [(), ("--images",), ("--sample",)], ids=str)
def test_options_that_are_missing(command, images, old, tmp_path, given):
    values = {"--images": images, "--sample": write_sample(tmp_path / "s.csv", ["100"])}
    error = failed(command, old, *(word for option in given for word in (option, values[option])))
    assert "--images" in error
    assert "--sample" in error


def test_sample_that_does_not_fit(command, images, old, tmp_path):
    sample = write_sample(tmp_path / "s.csv", ["100", "99"])
    assert "the first is 99" in failed(command, old, "--images", images, "--sample", sample)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_image(command, images, old, tmp_path, damage):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    data = (folder / "105.png").read_bytes()
    (folder / "105.png").write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"not an image"}[damage])
    sample = write_sample(tmp_path / "s.csv", [path.name for path in sorted(folder.iterdir())])
    error = failed(command, old, "--images", folder, "--sample", sample)
    assert f"{folder / '105.png'} cannot be read as an image" in error
    assert "replace or remove it" in error


def test_damaged_model(command, images, old, tmp_path, monkeypatch):
    folder = tmp_path / "source"
    shutil.copytree(tiny_submission(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "SubmissionModel" / "saved_model.pb").write_bytes(b"\xff" * 5000)
    monkeypatch.setattr(build_submission, "SOURCE", folder)
    error = failed(command, old, "--images", images, "--sample", write_sample(tmp_path / "s.csv", ["100"]))
    assert "SubmissionModel" in error


def test_missing_model(command, images, old, tmp_path, monkeypatch):
    monkeypatch.setattr(build_submission, "SOURCE", tmp_path)
    error = failed(command, old, "--images", images, "--sample", write_sample(tmp_path / "s.csv", ["100"]))
    assert f"no model at {tmp_path / 'SubmissionModel'}" in error


def test_places_that_cannot_be_written(command, images, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    sample = write_sample(tmp_path / "s.csv", ["100"])
    for target in (tmp_path / "file" / "a.csv", tmp_path / "folder.csv"):
        code, out, err = command("--images", images, "--sample", sample, "--out", target)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: cannot write {target}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv", "s.csv"]


def test_interrupt(command, images, old, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("competition.kaggle._predict", interrupt)
    code, _, err = command("--images", images, "--sample", write_sample(tmp_path / "s.csv", ["100"]), "--out", old)
    assert (code, err) == (130, "\ninterrupted; the old file is as it was\n")
    assert kept(old)


def test_a_run_answers_with_its_own_model(command, images, truth, old, tmp_path, monkeypatch):
    names = tuple(f"Kind{number}" for number in range(8))
    monkeypatch.setattr("training.run.load_network", lambda run: (tiny_network(), names, ("none", "horizontal"), 1.0))
    sample = write_sample(tmp_path / "s.csv", sorted(truth)[:9], value="Kind0")
    code, _, err = command("--images", images, "--sample", sample, "--run", "runs/first", "--out", old)
    assert (code, err) == (0, "")
    assert [row[1] for row in table(old)[1:]] == [names[truth[name].argmax()] for name in sorted(truth)[:9]]
