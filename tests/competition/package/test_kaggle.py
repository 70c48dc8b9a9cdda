"""The Kaggle layout: sample_submission.csv is filled in id by id with the model's own predictions."""

import csv
import re
import shlex
import shutil

import numpy as np
import pytest
import tensorflow as tf
from helpers import NAMES, load_module, tiny_submission
from PIL import Image

import build_submission
from competition.package import build
from competition.package.kaggle import write_csv
from competition.synthetic import draw_images, draw_leaf

pytestmark = pytest.mark.integration

COUNT = 40  # more than one batch


@pytest.fixture(scope="module")
def submitted_model():
    return load_module(tiny_submission() / "model.py", "tiny_model").model(tiny_submission())


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """A folder of images 100.png, 101.png, …, all of one size."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(draw_images(COUNT, seed=7)):
        Image.fromarray(image).save(folder / f"{100 + number}.png")
    return folder


@pytest.fixture(scope="module")
def by_id(submitted_model, image_folder):
    """{id without suffix: the model's probabilities for that image}."""
    paths = sorted(image_folder.iterdir())
    probabilities = submitted_model.predict_proba(np.stack([np.asarray(Image.open(path)) for path in paths]))
    assert len(set(probabilities.argmax(1))) > 3
    return {path.stem: row for path, row in zip(paths, probabilities, strict=True)}


def write_sample(path, ids, header="id,label", value="Species1", end="\n", bom=""):
    path.write_bytes((bom + "".join(line + end for line in (header, *(f"{name},{value}" for name in ids)))).encode())
    return path


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def shuffled(ids, seed=1):
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(ids))]


def test_sample_with_names(submitted_model, image_folder, by_id, tmp_path):
    ids = shuffled(by_id)
    sample = write_sample(tmp_path / "sample.csv", ids, "image,Label of it")
    path, notes = write_csv(submitted_model, image_folder, sample, tmp_path / "new" / "a.csv")
    assert (path, notes) == (tmp_path / "new" / "a.csv", [])
    assert table(path) == [
        ["image", "Label of it"],
        *([name, NAMES[by_id[name].argmax()]] for name in ids),
    ]
    assert path.read_bytes().count(b"\n") == COUNT + 1
    assert b"\r" not in path.read_bytes()


def test_sample_with_numbers(submitted_model, image_folder, by_id, tmp_path):
    ids = shuffled(by_id)
    path, _ = write_csv(
        submitted_model, image_folder, write_sample(tmp_path / "sample.csv", ids, value="0"), tmp_path / "a.csv"
    )
    assert table(path) == [["id", "label"], *([name, str(by_id[name].argmax())] for name in ids)]


def test_sample_with_probabilities_keeps_the_order_of_its_columns(submitted_model, image_folder, by_id, tmp_path):
    ids, columns = shuffled(by_id), shuffled(NAMES, seed=2)
    assert columns != list(NAMES)
    sample = write_sample(tmp_path / "sample.csv", ids, ",".join(["id", *columns]), ",".join(["0.125"] * len(NAMES)))
    header, *rows = table(write_csv(submitted_model, image_folder, sample, tmp_path / "a.csv")[0])
    assert header == ["id", *columns]
    assert [row[0] for row in rows] == ids
    got = np.array([row[1:] for row in rows], float)
    expected = np.array([[by_id[name][NAMES.index(column)] for column in columns] for name in ids])
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert np.abs(got.sum(1) - 1).max() < 1e-4


def test_images_that_are_not_in_the_sample_are_counted(submitted_model, image_folder, by_id, tmp_path):
    ids = shuffled(by_id)[:5]
    path, notes = write_csv(
        submitted_model, image_folder, write_sample(tmp_path / "sample.csv", ids), tmp_path / "a.csv"
    )
    assert [row[0] for row in table(path)[1:]] == ids
    assert notes == [f"{COUNT - 5} other files in {image_folder} are not in the sample"]


def test_images_of_every_size_and_mode_are_read(submitted_model, tmp_path):
    """The expected answers are those that the model gives for the paths of the images."""
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
    rows = table(write_csv(submitted_model, folder, sample, tmp_path / "a.csv")[0])[1:]
    expected = [submitted_model.predict_proba(str(folder / name))[0] for name in ids]
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float), expected, atol=2e-6)


def test_quotes_and_commas_are_kept(submitted_model, image_folder, by_id, tmp_path):
    shutil.copy(image_folder / "100.png", tmp_path / "a, b.png")
    (tmp_path / "s.csv").write_text('"the ""id""",label\n"a, b.png",Species2\n')
    path, _ = write_csv(submitted_model, tmp_path, tmp_path / "s.csv", tmp_path / "out" / "a.csv")
    assert table(path) == [['the "id"', "label"], ["a, b.png", NAMES[by_id["100"].argmax()]]]


# --- the command line


@pytest.fixture
def run_kaggle(monkeypatch, capsys):
    """Runs build_submission.py --layout kaggle with the tiny submission. Returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(build, "SOURCE", tiny_submission())

    def run(*arguments):
        code = build_submission.main(["--layout", "kaggle", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def old_csv(tmp_path):
    """An earlier CSV file, in its own folder."""
    path = tmp_path / "dist" / "submission.csv"
    path.parent.mkdir()
    path.write_text("the old answers")
    return path


def unchanged(old_csv):
    """Whether the old file is unchanged and the only file of its folder."""
    names = [path.name for path in old_csv.parent.iterdir()]
    return old_csv.read_text() == "the old answers" and names == [old_csv.name]


def test_command_writes_the_csv_and_prints_the_upload_command(run_kaggle, image_folder, by_id, old_csv, tmp_path):
    ids = shuffled(by_id)[:35]
    sample = write_sample(tmp_path / "s.csv", [f"{name}.png" for name in ids])
    arguments = "--images", image_folder, "--sample", sample, "--out", old_csv, "--competition", "leaves-2"
    code, out, err = run_kaggle(*arguments)
    assert (code, err) == (0, "")
    assert table(old_csv)[1:] == [[f"{name}.png", NAMES[by_id[name].argmax()]] for name in ids]
    assert [path.name for path in old_csv.parent.iterdir()] == [old_csv.name]
    note, line = out.splitlines()
    assert note.startswith(f"5 other files in {image_folder}")
    command = ["kaggle", "competitions", "submit", "-c", "leaves-2", "-f", str(old_csv), "-m", "message"]
    assert shlex.split(line)[-len(command) :] == command


def test_printed_command_quotes_a_path_with_blanks(run_kaggle, image_folder, tmp_path):
    sample, target = write_sample(tmp_path / "s.csv", ["100", "101"]), tmp_path / "my answers" / "it's.csv"
    code, out, _ = run_kaggle("--images", image_folder, "--sample", sample, "--out", target)
    assert code == 0
    command = out.splitlines()[-1]
    assert str(target) in shlex.split(command[command.index("kaggle competitions") :])


def test_printed_command_has_a_placeholder_for_the_competition(run_kaggle, image_folder, old_csv, tmp_path):
    sample = write_sample(tmp_path / "s.csv", ["100"])
    code, out, _ = run_kaggle("--images", image_folder, "--sample", sample, "--out", old_csv)
    assert code == 0
    assert "kaggle competitions submit -c COMPETITION -f " in out


def error_of(run_kaggle, old_csv, *arguments):
    """Runs the command, which must exit with 2 and keep the old file. Returns the line on stderr."""
    code, out, err = run_kaggle(*arguments, "--out", old_csv)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: .+\n", err)
    assert unchanged(old_csv)
    return err


@pytest.mark.parametrize("given", [(), ("--images",), ("--sample",)], ids=str)
def test_missing_options_are_named(run_kaggle, image_folder, old_csv, tmp_path, given):
    values = {"--images": image_folder, "--sample": write_sample(tmp_path / "s.csv", ["100"])}
    error = error_of(run_kaggle, old_csv, *(word for option in given for word in (option, values[option])))
    assert "--images" in error
    assert "--sample" in error


def test_sample_with_an_id_without_image_fails(run_kaggle, image_folder, old_csv, tmp_path):
    sample = write_sample(tmp_path / "s.csv", ["100", "99"])
    assert "the first is 99" in error_of(run_kaggle, old_csv, "--images", image_folder, "--sample", sample)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_image_is_named(run_kaggle, image_folder, old_csv, tmp_path, damage):
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    data = (folder / "105.png").read_bytes()
    damaged = {"truncated": data[: len(data) // 2], "empty": b"", "text": b"not an image"}[damage]
    (folder / "105.png").write_bytes(damaged)
    sample = write_sample(tmp_path / "s.csv", [path.name for path in sorted(folder.iterdir())])
    error = error_of(run_kaggle, old_csv, "--images", folder, "--sample", sample)
    assert f"{folder / '105.png'} cannot be read" in error
    assert "replace or remove it" in error


@pytest.mark.parametrize(("damage", "reason"), [("garbage", "cannot load"), ("removed", "no model at")])
def test_damaged_or_missing_model_is_named(
    run_kaggle, submission_folder, image_folder, old_csv, tmp_path, damage, reason
):
    graph = submission_folder / "SubmissionModel" / "saved_model.pb"
    graph.write_bytes(b"\xff" * 5000)
    if damage == "removed":
        graph.unlink()
    sample = write_sample(tmp_path / "s.csv", ["100"])
    error = error_of(run_kaggle, old_csv, "--images", image_folder, "--sample", sample)
    assert f"{reason} {submission_folder / 'SubmissionModel'}" in error


def test_path_that_cannot_be_written_exits_with_2(run_kaggle, image_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    sample = write_sample(tmp_path / "s.csv", ["100"])
    for target in (tmp_path / "file" / "a.csv", tmp_path / "folder.csv"):
        code, out, err = run_kaggle("--images", image_folder, "--sample", sample, "--out", target)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: cannot write {target}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv", "s.csv"]


def test_interrupt_exits_with_130(run_kaggle, image_folder, old_csv, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("competition.package.kaggle._predict", interrupt)
    sample = write_sample(tmp_path / "s.csv", ["100"])
    code, _, err = run_kaggle("--images", image_folder, "--sample", sample, "--out", old_csv)
    assert code == 130
    assert "interrupted" in err
    assert unchanged(old_csv)


def renamed_model(run, folder):
    """Stands in for `export_run`: the tiny network with the class names Kind0, Kind1, …"""
    saved = tf.saved_model.load(str(tiny_submission() / "SubmissionModel"))
    about = saved.signatures["about"]()
    about["names"] = tf.constant([f"Kind{number}" for number in range(8)])
    values = {key: value.numpy() for key, value in about.items()}
    renamed = tf.function(lambda: {key: tf.constant(value) for key, value in values.items()}, input_signature=[])
    signatures = {"probabilities": saved.signatures["probabilities"], "about": renamed}
    tf.saved_model.save(saved, str(folder), signatures)


def test_run_predicts_with_its_own_model(run_kaggle, image_folder, by_id, old_csv, tmp_path, monkeypatch):
    monkeypatch.setattr("training.export.export_run", renamed_model)
    ids = sorted(by_id)[:9]
    sample = write_sample(tmp_path / "s.csv", ids, value="Kind0")
    arguments = "--images", image_folder, "--sample", sample, "--run", "runs/first", "--out", old_csv
    code, _, err = run_kaggle(*arguments)
    assert (code, err) == (0, "")
    assert [row[1] for row in table(old_csv)[1:]] == [f"Kind{by_id[name].argmax()}" for name in ids]
