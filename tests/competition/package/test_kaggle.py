"""The Kaggle layout: sample_submission.csv is filled in id by id with the model's own predictions."""

import errno
import hashlib
import re
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from helpers import NAMES, csv_rows, load_module, tiny_submission
from PIL import Image

import build_submission
from common.errors import UserError
from common.files import write_json
from common.image_file import NO_HEIC
from common.images import Images
from competition.package import build
from competition.package.kaggle import write_csv
from competition.package.trained_on import write_trained_on
from competition.synthetic import draw_images, draw_leaf
from training.recipes.released_full import recipe
from training.run_folder import RECORD, make_record

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


def damaged_copy(image_folder, folder, names, damage):
    """A copy of the images in which some files are damaged."""
    shutil.copytree(image_folder, folder)
    for name in names:
        path = folder / f"{name}.png"
        data = path.read_bytes()
        path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"not an image"}[damage])
    return folder


def write_sample(path, ids, header="id,label", value="Species1", end="\n", bom=""):
    path.write_bytes((bom + "".join(line + end for line in (header, *(f"{name},{value}" for name in ids)))).encode())
    return path


def shuffled(ids, seed=1):
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(ids))]


def test_sample_with_names(submitted_model, image_folder, by_id, tmp_path):
    ids = shuffled(by_id)
    sample = write_sample(tmp_path / "sample.csv", ids, "image,Label of it")
    path, notes = write_csv(submitted_model, image_folder, sample, tmp_path / "new" / "a.csv")
    assert path == tmp_path / "new" / "a.csv"
    assert notes == [f"labels: the class names as they are, {', '.join(NAMES)}"]
    assert csv_rows(path) == [
        ["image", "Label of it"],
        *([name, NAMES[by_id[name].argmax()]] for name in ids),
    ]
    assert path.read_bytes().count(b"\n") == COUNT + 1
    assert b"\r" not in path.read_bytes()


def test_sample_with_numbers(submitted_model, image_folder, by_id, tmp_path):
    ids = shuffled(by_id)
    sample = write_sample(tmp_path / "sample.csv", ids, value="0")
    with pytest.raises(UserError, match="may be placeholders.* --answer positions or --answer one-based"):
        write_csv(submitted_model, image_folder, sample, tmp_path / "a.csv")
    path, notes = write_csv(submitted_model, image_folder, sample, tmp_path / "a.csv", "positions")
    assert "0 = Species1, 1 = Species2" in notes[0]
    assert csv_rows(path) == [["id", "label"], *([name, str(by_id[name].argmax())] for name in ids)]


def test_the_sample_is_not_overwritten(image_folder, tmp_path, capsys):
    sample = write_sample(tmp_path / "sample.csv", ["0", "1"], value=NAMES[0])
    before = sample.read_bytes()
    arguments = ["--layout", "kaggle", "--images", str(image_folder), "--sample", str(sample), "--out", str(sample)]
    assert build_submission.main(arguments) == 2
    assert "--out must be another file than --sample" in capsys.readouterr().err
    assert sample.read_bytes() == before


def test_sample_with_probabilities_keeps_the_order_of_its_columns(submitted_model, image_folder, by_id, tmp_path):
    ids, columns = shuffled(by_id), shuffled(NAMES, seed=2)
    assert columns != list(NAMES)
    sample = write_sample(tmp_path / "sample.csv", ids, ",".join(["id", *columns]), ",".join(["0.125"] * len(NAMES)))
    header, *rows = csv_rows(write_csv(submitted_model, image_folder, sample, tmp_path / "a.csv")[0])
    assert header == ["id", *columns]
    assert [row[0] for row in rows] == ids
    got = np.array([row[1:] for row in rows], float)
    expected = np.array([[by_id[name][NAMES.index(column)] for column in columns] for name in ids])
    np.testing.assert_allclose(got, expected, atol=8e-6)
    assert np.abs(got.sum(1) - 1).max() < 1e-12


class StubModel:
    """Predicts that the top left pixel's red value is the class, with a probability that is exactly 1."""

    def __init__(self, names):
        self.names = tuple(names)

    def predict_proba(self, X):
        X = np.stack(list(X))
        return np.eye(len(self.names), dtype=np.float32)[X[:, 0, 0, 0]]


def stub_images(folder, count, name="{}.png"):
    """Images whose class is their number."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (3, 3), (number, 0, 0)).save(folder / name.format(number))
    return folder


def test_probabilities_are_clipped_and_sum_to_1(tmp_path):
    folder = stub_images(tmp_path / "images", 8)
    sample = write_sample(tmp_path / "s.csv", range(8), ",".join(["id", *NAMES]), ",".join(["0.125"] * 8))
    path, _ = write_csv(StubModel(NAMES), folder, sample, tmp_path / "a.csv")
    got = np.array([row[1:] for row in csv_rows(path)[1:]], float)
    assert got.min() == 1e-6
    assert got.max() <= 1 - 1e-6
    assert np.abs(got.sum(axis=1) - 1).max() < 1e-12
    assert got.argmax(axis=1).tolist() == list(range(8))


EIGHT = [str(number) for number in range(1, 9)]
LABELS = {  # names, sample, --answer, what must be written for the images of class 0 to 7
    "names from 1": (EIGHT, "1", None, EIGHT),
    "padded names": ([f"0{name}" for name in EIGHT], "01", None, [f"0{name}" for name in EIGHT]),
    "padded names, plain sample": ([f"0{name}" for name in EIGHT], "1", None, EIGHT),
    "from 1": (NAMES, "8", None, EIGHT),
    "told to be from 1": (NAMES, "1", "one-based", EIGHT),
    "told to be from 0": (NAMES, "1", "positions", [str(number) for number in range(8)]),
    "told to be names": (EIGHT, "0", "names", EIGHT),
}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("header", ["id,label", "label,id", None])
def test_labels_are_written_as_the_competition_takes_them(tmp_path, case, header):
    names, value, told, expected = LABELS[case]
    folder = stub_images(tmp_path / "images", 8, "{}.png" if header is None else "00{}.png")
    label_first = header == "label,id"
    rows = [f"{value},{number}" if label_first else f"{number},{value}" for number in range(8)]
    (tmp_path / "s.csv").write_text("\n".join([header, *rows] if header else rows) + "\n")
    path, notes = write_csv(StubModel(names), folder, tmp_path / "s.csv", tmp_path / "a.csv", told)
    body = csv_rows(path)[1:] if header else csv_rows(path)
    assert [row[label_first] for row in body] == [str(number) for number in range(8)]
    assert [row[not label_first] for row in body] == expected
    assert notes[0].startswith("labels")


@pytest.mark.parametrize(("column", "told"), [("c", None), ("target", "probability")])
def test_probability_of_one_of_two_classes(tmp_path, column, told):
    folder = stub_images(tmp_path / "images", 2)
    sample = write_sample(tmp_path / "s.csv", ["0", "1"], f"id,{column}", "0.5")
    path, notes = write_csv(StubModel(["b", "c"]), folder, sample, tmp_path / "a.csv", told)
    assert csv_rows(path) == [["id", column], ["0", "0.000001000000"], ["1", "0.999999000000"]]
    assert "the probability of c" in notes[0]


@pytest.mark.parametrize("count", [2, 8])
def test_small_and_large_probabilities_keep_the_order_of_the_images(tmp_path, count):
    """Float32 probabilities below the smallest that is written, and above the largest, make no ties."""
    rare = np.array([1e-4, 3e-11, 1e-9, 2e-7, 1e-6, 5e-10], np.float32)
    rows = np.full((len(rare), count), 1e-12, np.float32)
    rows[:, 0], rows[:, 1] = rare, 1 - rare
    assert len(set(rows[:, 1])) < len(rare)  # equal in float32
    folder, model = stub_images(tmp_path / "images", len(rare)), StubModel([f"c{i}" for i in range(count)])
    model.predict_proba = lambda X: rows[: len(list(X))]
    sample = write_sample(
        tmp_path / "s.csv", range(len(rare)), ",".join(["id", *model.names]), ",".join(["0.5"] * count)
    )
    written = np.array(
        [row[1:] for row in csv_rows(write_csv(model, folder, sample, tmp_path / "a.csv")[0])[1:]], float
    )
    assert np.argsort(written[:, 0]).tolist() == np.argsort(rare).tolist()
    assert np.argsort(-written[:, 1]).tolist() == np.argsort(rare).tolist()
    assert len(set(written[:, 0])) == len(set(written[:, 1])) == len(rare)


def test_probabilities_that_are_not_finite_are_refused(tmp_path):
    folder, model = stub_images(tmp_path / "images", 2), StubModel(NAMES)
    model.predict_proba = lambda X: np.full((len(list(X)), 8), np.nan, np.float32)
    with pytest.raises(UserError, match="NaN"):
        write_csv(model, folder, write_sample(tmp_path / "s.csv", ["0", "1"]), tmp_path / "a.csv")


def test_images_that_are_not_in_the_sample_are_counted(submitted_model, image_folder, by_id, tmp_path):
    ids = shuffled(by_id)[:5]
    path, notes = write_csv(
        submitted_model, image_folder, write_sample(tmp_path / "sample.csv", ids), tmp_path / "a.csv"
    )
    assert [row[0] for row in csv_rows(path)[1:]] == ids
    assert notes[1:] == [f"{COUNT - 5} other files in {image_folder} are not in the sample"]


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
    rows = csv_rows(write_csv(submitted_model, folder, sample, tmp_path / "a.csv")[0])[1:]
    expected = [submitted_model.predict_proba(str(folder / name))[0] for name in ids]
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float), expected, atol=8e-6)


def test_quotes_and_commas_are_kept(submitted_model, image_folder, by_id, tmp_path):
    shutil.copy(image_folder / "100.png", tmp_path / "a, b.png")
    (tmp_path / "s.csv").write_text('"the ""id""",label\n"a, b.png",Species2\n')
    path, _ = write_csv(submitted_model, tmp_path, tmp_path / "s.csv", tmp_path / "out" / "a.csv")
    assert csv_rows(path) == [['the "id"', "label"], ["a, b.png", NAMES[by_id["100"].argmax()]]]


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
    assert csv_rows(old_csv)[1:] == [[f"{name}.png", NAMES[by_id[name].argmax()]] for name in ids]
    assert [path.name for path in old_csv.parent.iterdir()] == [old_csv.name]
    model, mapping, note, line = out.splitlines()
    place = tiny_submission() / "SubmissionModel"
    assert model == f"model: {place}, {', '.join(NAMES)}; --run RUN takes your own"
    assert mapping.startswith("labels: the class names")
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


@pytest.mark.parametrize(
    "option", ["--images", "--sample", "--answer", "--competition", "--user", "--title", "--limit-mb"]
)
def test_options_without_an_effect_are_refused(image_folder, old_csv, capsys, option):
    values = {"--images": image_folder, "--sample": old_csv, "--answer": "names", "--limit-mb": 7}
    arguments = [option, str(values.get(option, "x")), "--out", str(old_csv)]
    if option == "--limit-mb":
        arguments += ["--layout", "kaggle", "--images", str(image_folder), "--sample", str(old_csv)]
    assert build_submission.main(arguments) == 2
    error = capsys.readouterr().err
    assert option in error
    assert "leave out" in error
    assert unchanged(old_csv)


def test_undecided_labels_are_told_on_the_command_line(run_kaggle, image_folder, by_id, old_csv, tmp_path):
    ids = sorted(by_id)[:9]
    arguments = "--images", image_folder, "--sample", write_sample(tmp_path / "s.csv", ids, value="1")
    assert "--answer one-based" in error_of(run_kaggle, old_csv, *arguments)
    assert run_kaggle(*arguments, "--answer", "one-based", "--out", old_csv)[0] == 0
    assert [row[1] for row in csv_rows(old_csv)[1:]] == [str(by_id[name].argmax() + 1) for name in ids]


def test_class_of_another_task_names_the_model_and_the_option(run_kaggle, image_folder, old_csv, tmp_path):
    """Without --run the committed model is used."""
    arguments = "--images", image_folder, "--sample", write_sample(tmp_path / "s.csv", ["100"], value="Rose")
    assert "the model has the classes Species1, " in error_of(run_kaggle, old_csv, *arguments)
    assert "build with --run RUN" in error_of(run_kaggle, old_csv, *arguments)


def test_the_answer_has_one_option(old_csv, capsys):
    """--labels, which means a CSV file elsewhere, is none of build_submission.py."""
    with pytest.raises(SystemExit):
        build_submission.main(["--layout", "kaggle", "--labels", "names"])
    assert "--labels" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "best"])
def test_wrong_sample_is_found_before_anything_is_exported(
    run_kaggle, image_folder, old_csv, tmp_path, monkeypatch, place
):
    """Also with a run of `training auto`, whose record is in its folder best."""
    run, exported = tmp_path / "run", []
    (run / place).mkdir(parents=True)
    images = Images(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]), NAMES, ("a.png", "b.png"))
    write_json(run / place / RECORD, make_record("first", recipe, images, "none").to_json())
    monkeypatch.setattr("training.export.export_run", lambda *arguments: exported.append(arguments))
    sample = write_sample(tmp_path / "s.csv", ["100"], value="Rose")
    assert "got 'Rose'" in error_of(run_kaggle, old_csv, "--images", image_folder, "--sample", sample, "--run", run)
    assert exported == []


def test_sample_with_an_id_without_image_fails(run_kaggle, image_folder, old_csv, tmp_path):
    sample = write_sample(tmp_path / "s.csv", ["100", "99"])
    assert "the first is 99" in error_of(run_kaggle, old_csv, "--images", image_folder, "--sample", sample)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_image_gets_the_mean_of_the_others(run_kaggle, image_folder, by_id, tmp_path, damage):
    """As in the notebook: the competition's images cannot be repaired, and every id needs an answer."""
    folder = damaged_copy(image_folder, tmp_path / "images", ["105"], damage)
    out = tmp_path / "out.csv"
    ids = sorted(by_id)
    sample = write_sample(
        tmp_path / "s.csv", [f"{name},1" for name in ids], header="id," + ",".join(NAMES), value="0,0,0,0,0,0,0"
    )
    code, printed, _ = run_kaggle("--images", folder, "--sample", sample, "--out", out)
    assert code == 0
    assert f"warning: 1 of {COUNT} images cannot be read, {folder / '105.png'} first" in printed
    assert "object at" not in printed
    written = {row[0]: np.array(row[1:], float) for row in csv_rows(out)[1:]}
    others = [by_id[name] for name in ids if name != "105"]
    np.testing.assert_allclose(written["105"], np.mean(others, axis=0), atol=1e-4)
    for name in ("104", "106"):
        np.testing.assert_allclose(written[name], by_id[name], atol=1e-4)


def test_images_that_the_model_was_trained_on_are_counted(submitted_model, image_folder, tmp_path):
    paths = sorted(image_folder.iterdir())
    hashes = [hashlib.sha256(path.read_bytes()).digest()[:8] for path in paths[:3]]
    write_trained_on(tmp_path, [*hashes, b"8 bytes."])
    sample = write_sample(tmp_path / "s.csv", [path.stem for path in paths])
    for model_folder, seen in ((tmp_path, True), (None, False)):
        notes = write_csv(submitted_model, image_folder, sample, tmp_path / "a.csv", None, model_folder)[1]
        warning = f"warning: the model was trained on 3 of these {COUNT} images; check --images"
        assert (warning in notes) == seen


def test_many_damaged_images_are_an_error(run_kaggle, image_folder, old_csv, tmp_path):
    folder = damaged_copy(image_folder, tmp_path / "images", ["101", "105", "110"], "empty")
    sample = write_sample(tmp_path / "s.csv", [path.name for path in sorted(folder.iterdir())])
    error = error_of(run_kaggle, old_csv, "--images", folder, "--sample", sample)
    assert f"3 of 32 images cannot be read, {folder / '101.png'} first" in error  # the first batch


def test_predicting_ends_when_too_many_images_cannot_be_read(run_kaggle, image_folder, old_csv, tmp_path, monkeypatch):
    """Of 40 images 2 are allowed; the first batch has 32."""
    read = []
    monkeypatch.setattr("competition.package.kaggle.read_file", lambda path: read.append(path) or b"")
    sample = write_sample(tmp_path / "s.csv", [path.name for path in sorted(image_folder.iterdir())])
    error = error_of(run_kaggle, old_csv, "--images", image_folder, "--sample", sample)
    assert "32 of 32 images cannot be read" in error
    assert len(set(read)) == 32


def test_photographs_that_need_a_package_are_no_damaged_images(
    run_kaggle, image_folder, old_csv, tmp_path, monkeypatch
):
    def fail(data):
        raise ValueError(NO_HEIC)

    monkeypatch.setattr("competition.package.kaggle.decode", fail)
    sample = write_sample(tmp_path / "s.csv", ["105"])
    error = error_of(run_kaggle, old_csv, "--images", image_folder, "--sample", sample)
    assert f"error: cannot read {image_folder / '105.png'}: Pillow has no HEIC reader; pip install pillow-heif" in error


def test_file_that_this_computer_cannot_read_is_no_damaged_image(
    run_kaggle, image_folder, old_csv, monkeypatch, tmp_path
):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("competition.package.kaggle.read_file", fail)
    sample = write_sample(tmp_path / "s.csv", ["105"])
    error = error_of(run_kaggle, old_csv, "--images", image_folder, "--sample", sample)
    assert f"error: cannot read {image_folder / '105.png'}: Input/output error" in error


@pytest.mark.parametrize("case", [("garbage", "cannot load"), ("removed", "no model at")], ids=lambda case: case[0])
def test_damaged_or_missing_model_is_named(run_kaggle, submission_folder, image_folder, old_csv, tmp_path, case):
    damage, reason = case
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
    for target, reason in (("file/a.csv", "cannot write {}: "), ("folder.csv", "--out must be a file, and {} is")):
        target = tmp_path / target
        code, out, err = run_kaggle("--images", image_folder, "--sample", sample, "--out", target)
        assert (code, out) == (2, "")
        assert err.startswith("error: " + reason.format(target))
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
    record = SimpleNamespace(name="first", classes=tuple(f"Kind{number}" for number in range(8)))
    monkeypatch.setattr("training.run_folder.read_record", lambda folder: record)
    ids = sorted(by_id)[:9]
    sample = write_sample(tmp_path / "s.csv", ids, value="Kind0")
    arguments = "--images", image_folder, "--sample", sample, "--run", "runs/first", "--out", old_csv
    code, out, err = run_kaggle(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("model: runs/first, recipe first, Kind0, Kind1, ")
    assert [row[1] for row in csv_rows(old_csv)[1:]] == [f"Kind{by_id[name].argmax()}" for name in ids]
