"""The layout for Kaggle's code competitions: a dataset and a notebook that predicts hidden images without internet.

/kaggle/input is imitated: the competition's data with a longer sample and more images than the public ones, and the
dataset as Kaggle mounts it.
"""

import ast
import contextlib
import json
import re
import shutil
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import NAMES, ROOT, csv_rows, python, tiny_submission
from PIL import Image

import build_submission
from common.errors import UserError
from competition.package import build, kaggle_kernel
from competition.package.kaggle import plan, write_csv
from competition.package.kaggle_code import CodeCompetition, inputs_of, notebook
from competition.synthetic import draw_images

pytestmark = pytest.mark.integration

TARGET = ("--competition", "leaf-quiz", "--user", "me")
# A submission that needs no TensorFlow: an image's red value is its class.
STUB = """
import numpy as np
from PIL import Image

class model:
    def __init__(self, path):
        self.names = {names!r}

    def predict_proba(self, X):
        place = [np.asarray(Image.open(path))[0, 0, 0] for path in X]
        return np.eye(len(self.names), dtype=np.float32)[place] * np.float32({scale})
"""


class StubModel:
    """The same in this process, for images that are read already. The runners-up come in the order of the classes."""

    def __init__(self, names):
        self.names = tuple(names)

    def predict_proba(self, X):
        return np.eye(len(self.names), dtype=np.float32)[[image[0, 0, 0] for image in X]]


def red_images(folder, count, name="{}.png"):
    """Images whose class is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (3, 3), (number, 0, 0)).save(folder / name.format(number))
    return folder


# --- the folders and their metadata


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """The competition's public data: five images of leaves, and a sample of three labels in each cell."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "test_images").mkdir()
    for number, image in enumerate(draw_images(5, seed=3)):
        Image.fromarray(image).save(folder / "test_images" / f"{number}.png")
    rows = "".join(f"{number},Species1 Species2 Species3\n" for number in range(5))
    (folder / "sample_submission.csv").write_text(f"id,label\n{rows}")
    return folder


@pytest.fixture(scope="module")
def built(public, tmp_path_factory):
    """(the folder that the command has written, what it printed)."""
    out = tmp_path_factory.mktemp("code") / "my kaggle"
    target = CodeCompetition("leaf-quiz", "me")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SOURCE", tiny_submission())
        return out, build.write_code(public / "test_images", public / "sample_submission.csv", target, out=out)


def metadata(out, name):
    return json.loads((out / name / f"{name}-metadata.json").read_text("utf-8"))


def cells_of(out):
    """The code of the notebook, as the client sends it."""
    content = json.loads((out / "kernel" / metadata(out, "kernel")["code_file"]).read_text("utf-8"))
    assert (content["nbformat"], content["metadata"]["kernelspec"]["name"]) == (4, "python3")
    return "\n\n".join(cell["source"] for cell in content["cells"] if cell["cell_type"] == "code")


def test_dataset_is_the_content_of_the_zip(built):
    dataset = built[0] / "dataset"
    files = {path.relative_to(dataset).as_posix() for path in dataset.rglob("*") if path.is_file()}
    assert files >= {"model.py", "metadata", "SubmissionModel/saved_model.pb", "dataset-metadata.json"}
    for name in files - {"dataset-metadata.json"}:
        assert (dataset / name).read_bytes() == (tiny_submission() / name).read_bytes()


def test_metadata_meets_the_rules_of_the_client(built):
    """The rules of `datasets create` and `kernels push` in the package kaggle 2.2."""
    dataset, kernel = metadata(built[0], "dataset"), metadata(built[0], "kernel")
    owner, slug = dataset["id"].split("/")
    assert owner == "me"
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", slug) and 6 <= len(slug) <= 50
    assert 6 <= len(dataset["title"]) <= 50
    assert [set(license) for license in dataset["licenses"]] == [{"name"}]
    assert kernel["id"].split("/")[1] == re.sub("[^a-z0-9]+", "-", kernel["title"].lower())
    assert (kernel["language"], kernel["kernel_type"]) == ("python", "notebook")
    assert (kernel["enable_gpu"], kernel["enable_internet"], kernel["is_private"]) == (False, False, True)
    assert kernel["dataset_sources"] == [dataset["id"]]
    assert kernel["competition_sources"] == ["leaf-quiz"]


def test_printed_lines_are_the_mapping_and_the_commands_of_the_client(built):
    out, lines = built
    assert lines[0].startswith("MAP@3: three labels in each cell")
    commands = "\n".join(lines[1:])
    for words in (
        f"kaggle datasets create -p '{out}/dataset' --dir-mode zip",
        f"kaggle datasets version -p '{out}/dataset' --dir-mode zip -m message\nkaggle datasets status me/leaf-quiz",
        f"kaggle kernels push -p '{out}/kernel'",
        "kaggle competitions submit -c leaf-quiz -k me/leaf-quiz-model -f submission.csv -v VERSION",
    ):
        assert words in commands


def client(monkeypatch, folder):
    """The official client without its network. Returns (its API, the files and requests that it would send)."""
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(folder))
    module = pytest.importorskip("kaggle.api.kaggle_api_extended", reason="needs Kaggle's client: pip install kaggle")
    api, files, requests = module.KaggleApi(), {}, []
    api.config_values = {"username": "me"}

    def status(_):
        raise module.HTTPError("not found")

    def upload(path, *_):
        with open(path, "rb") as file:
            files[path.rpartition("/")[2]] = file.read()
        return "token"

    def send(request):
        requests.append(request)
        return SimpleNamespace(error=None, status="ok")

    network = SimpleNamespace(
        datasets=SimpleNamespace(dataset_api_client=SimpleNamespace(create_dataset=send)),
        kernels=SimpleNamespace(kernels_api_client=SimpleNamespace(save_kernel=send)),
    )
    monkeypatch.setattr(api, "dataset_status", status)
    monkeypatch.setattr(api, "_upload_blob", upload)
    monkeypatch.setattr(api, "build_kaggle_client", lambda: contextlib.nullcontext(network))
    return api, files, requests


def test_official_client_accepts_both_folders(built, tmp_path, monkeypatch, capsys):
    """Its own validation runs; only what it would send to Kaggle is caught."""
    api, files, requests = client(monkeypatch, tmp_path)
    assert api.dataset_create_new(str(built[0] / "dataset"), quiet=True, dir_mode="zip").status == "ok"
    api.kernels_push(str(built[0] / "kernel"))
    assert "title does not resolve" not in capsys.readouterr().out
    assert set(files) == {"model.py", "metadata", "SubmissionModel.zip"}
    (tmp_path / "model.zip").write_bytes(files["SubmissionModel.zip"])
    assert "saved_model.pb" in zipfile.ZipFile(tmp_path / "model.zip").namelist()
    dataset, kernel = requests
    assert (dataset.owner_slug, dataset.slug, dataset.is_private) == ("me", "leaf-quiz-model", True)
    assert (kernel.slug, kernel.enable_internet, kernel.is_private) == ("me/leaf-quiz-model", False, True)
    assert kernel.competition_data_sources == ["leaf-quiz"]


# --- the notebook


def test_notebook_in_a_fresh_process_writes_what_the_local_layout_writes(built, public, tmp_path, monkeypatch):
    """Hidden images are more than the public ones, in another order. No part of this repository can be imported."""
    root = tmp_path / "input"
    shutil.copytree(built[0] / "dataset", root / "datasets" / "me" / "leaf-quiz-model")
    hidden = root / "competitions" / "leaf-quiz"
    (hidden / "test_images").mkdir(parents=True)
    for number, image in enumerate(draw_images(40, seed=9)):
        Image.fromarray(image).save(hidden / "test_images" / f"{number}.png")
    rows = "".join(f"{number},Species1 Species2 Species3\n" for number in reversed(range(40)))
    (hidden / "sample_submission.csv").write_text(f"id,label\n{rows}")
    (tmp_path / "working").mkdir()
    (tmp_path / "working" / "cells.py").write_text(cells_of(built[0]), "utf-8")
    done = python("cells.py", cwd=tmp_path / "working", environment={"KAGGLE_INPUT": str(root)})
    assert done.returncode == 0, done.stderr
    assert "submission.csv: 40 images" in done.stdout
    monkeypatch.setattr(build, "SOURCE", tiny_submission())
    sample = hidden / "sample_submission.csv"
    expected, _ = build.predict_csv(hidden / "test_images", sample, out=tmp_path / "local.csv")
    assert (tmp_path / "working" / "submission.csv").read_bytes() == expected.read_bytes()
    answers = [row[1].split() for row in csv_rows(expected)[1:]]
    assert {len(set(answer)) for answer in answers} == {3}
    assert len({answer[0] for answer in answers}) > 3


EIGHT = [str(number) for number in range(1, 9)]
ONE_EACH = ",".join(["0.125"] * 8)
SAMPLES = {  # names, header, cell, --answer
    "names": (NAMES, "id,label", "Species1", None),
    "numeric names": (EIGHT, "id,label", "1", None),
    "label first": (NAMES, "label,id", "Species1", None),
    "no header": (NAMES, None, "Species1", None),
    "told to be from 1": (NAMES, "id,label", "0", "one-based"),
    "prefixed columns": (NAMES, "id," + ",".join(f"p_{name}" for name in reversed(NAMES)), ONE_EACH, None),
    "probability": (("cat", "dog"), "id,target", "0.5", "probability:cat"),
    "MAP@5": (NAMES, "id,label", " ".join(NAMES[:5]), None),
    "underscores": (("new whale", "pug", "cat"), "id,label", "pug new_whale", None),
}


def sample_text(header, cell, count):
    """A sample for the images 0 to `count` - 1."""
    swapped = header == "label,id"
    rows = [f"{cell},{number}" if swapped else f"{number},{cell}" for number in range(count)]
    return "\n".join([header, *rows] if header else rows) + "\n"


def settings_of(folder, sample, names, told=None):
    """What `write_code` puts into the notebook."""
    read, _, _ = plan(folder, sample, names, told, hidden=True)
    inputs = inputs_of(folder, sample)
    return {"dataset": "stub-model", "competition": "quiz", **inputs, "form": read.form()}


def write_dataset(root, names, scale="1"):
    """Returns the setting that names this version of the dataset."""
    folder = root / "stub-model"
    (folder / "SubmissionModel" / "variables").mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(STUB.format(names=tuple(names), scale=scale))
    for name in ("saved_model.pb", "variables/variables.index"):
        (folder / "SubmissionModel" / name).write_text(name)
    return {"sha256": kaggle_kernel.digest_of(folder)}


def run_notebook(settings, root, out, monkeypatch):
    """Executes the notebook's cells in this process."""
    monkeypatch.setenv("KAGGLE_INPUT", str(root))
    monkeypatch.chdir(out)
    code = [cell["source"] for cell in notebook(settings, "")["cells"] if cell["cell_type"] == "code"]
    exec(compile("\n\n".join(code), "cells", "exec"), {"__name__": "__main__"})
    return out / "submission.csv"


@pytest.mark.parametrize("case", SAMPLES)
def test_notebook_answers_in_the_form_of_the_sample(tmp_path, monkeypatch, case):
    names, header, cell, told = SAMPLES[case]
    count = len(names)
    public, hidden = tmp_path / "public", tmp_path / "input" / "quiz"
    images = red_images(public / "test", 2)
    red_images(hidden / "test", count)
    red_images(hidden / "train", 2)  # of the same names, and no test images
    (public / "sample_submission.csv").write_text(sample_text(header, cell, 2))
    (hidden / "sample_submission.csv").write_text(sample_text(header, cell, count))
    model = write_dataset(tmp_path / "input", names)
    settings = {**settings_of(images, public / "sample_submission.csv", names, told), **model}
    got = run_notebook(settings, tmp_path / "input", tmp_path, monkeypatch)
    sample = hidden / "sample_submission.csv"
    expected, _ = write_csv(StubModel(names), hidden / "test", sample, tmp_path / "local.csv", told)
    assert got.read_bytes() == expected.read_bytes()
    assert len(csv_rows(got)) == count + (header is not None)


@pytest.fixture
def stub(tmp_path):
    """(settings of a notebook, the folder that stands for /kaggle/input)."""
    images = red_images(tmp_path / "public" / "test", 2)
    (tmp_path / "public" / "s.csv").write_text("id,label\n0,Species1\n1,Species1\n")
    settings = settings_of(images, tmp_path / "public" / "s.csv", NAMES)
    shutil.copytree(tmp_path / "public", tmp_path / "input" / "quiz")
    return {**settings, **write_dataset(tmp_path / "input", NAMES)}, tmp_path / "input"


@pytest.mark.parametrize("place", ["quiz", "competitions/quiz", "a/b/quiz"])
@pytest.mark.parametrize("below", ["", "data"])
def test_inputs_are_found_where_kaggle_mounts_them(stub, tmp_path, monkeypatch, place, below):
    settings, root = stub
    (root / place / below).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / "quiz", tmp_path / "moved")
    shutil.move(tmp_path / "moved", root / place / below)
    assert len(csv_rows(run_notebook(settings, root, tmp_path, monkeypatch))) == 3


def test_ids_with_other_zeros_are_found(stub, tmp_path, monkeypatch):
    settings, root = stub
    shutil.rmtree(root / "quiz" / "test")
    red_images(root / "quiz" / "test" / "img", 2, "000{}.PNG")
    got = run_notebook(settings, root, tmp_path, monkeypatch)
    assert csv_rows(got)[1:] == [["0", "Species1"], ["1", "Species2"]]


def rewrite(name, text):
    return lambda root: (root / name).write_text(text)


DAMAGE = {
    "no dataset": (lambda root: shutil.rmtree(root / "stub-model"), "contain stub-model.*add it"),
    "no competition": (lambda root: shutil.rmtree(root / "quiz"), "contain quiz.*add it"),
    "no input": (shutil.rmtree, "no such folder"),
    "no images": (lambda root: shutil.rmtree(root / "quiz" / "test"), "contain test"),
    "two competitions": (lambda root: [(root / name / "quiz").mkdir(parents=True) for name in "ab"] and
                         shutil.rmtree(root / "quiz"), "one input"),
    "another header": (rewrite("quiz/s.csv", "id,species\n0,Species1\n"), "must have the header"),
    "an id without image": (rewrite("quiz/s.csv", "id,label\n0,Species1\n7,Species1\n"), "id 7 must have one image"),
    "two images": (lambda root: shutil.copy(root / "quiz/test/0.png", root / "quiz/test/0.jpg"), "0.jpg and 0.png"),
    "two ids of one image": (rewrite("quiz/s.csv", "id,label\n0,Species1\n00,Species1\n"), "0 and 00 both match"),
    "another model.py": (lambda root: write_dataset(root, NAMES, "2"), "got another version; wait until"),
    "another network": (rewrite("stub-model/SubmissionModel/saved_model.pb", "x"), "got another version"),
    "other variables": (rewrite("stub-model/SubmissionModel/variables/variables.index", "x"), "got another version"),
    "renamed variables": (lambda root: (root / "stub-model/SubmissionModel/variables/variables.index").rename(
                          root / "stub-model/SubmissionModel/variables/index"), "got another version"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_notebook_fails_with_one_line_and_writes_nothing(stub, tmp_path, monkeypatch, case):
    settings, root = stub
    damage, reason = DAMAGE[case]
    damage(root)
    with pytest.raises(ValueError, match=reason) as caught:
        run_notebook(settings, root, tmp_path, monkeypatch)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "submission.csv").exists()


@pytest.fixture(scope="module")
def network():
    """A real model, as the notebook loads it."""
    return kaggle_kernel.load_code(tiny_submission() / "model.py").model(tiny_submission())


def photographs(folder, count, damaged):
    """Paths of images, of which some hold only the first half of their file."""
    paths = []
    for number, image in enumerate(draw_images(count, seed=4)):
        paths.append(folder / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
        if number in damaged:
            paths[-1].write_bytes(paths[-1].read_bytes()[: paths[-1].stat().st_size // 2])
    return [str(path) for path in paths]


@pytest.mark.parametrize(("count", "damaged"), [(2, {0}), (40, {0, 33})])
def test_hidden_image_that_cannot_be_read_gets_the_mean_of_the_others(network, tmp_path, capsys, count, damaged):
    paths = photographs(tmp_path, count, damaged)
    readable = [place for place in range(count) if place not in damaged]
    expected = network.predict_proba([paths[place] for place in readable])
    got = kaggle_kernel.predict(network, paths)
    np.testing.assert_allclose(got[readable], expected, atol=1e-5)
    for place in damaged:
        np.testing.assert_allclose(got[place], expected.mean(axis=0), atol=1e-5)
    assert f"warning: {len(damaged)} of {count} images cannot be read, {paths[0]} first" in capsys.readouterr().out


@pytest.mark.parametrize(("count", "damaged"), [(1, {0}), (20, {3, 4})])
def test_too_many_images_that_cannot_be_read_are_an_error(network, tmp_path, count, damaged):
    paths = photographs(tmp_path, count, damaged)
    with pytest.raises(ValueError, match=f"^{len(damaged)} of {count} images cannot be read, .*look at the files"):
        kaggle_kernel.predict(network, paths)


def test_reading_ends_when_too_many_images_cannot_be_read(network, tmp_path):
    """Of 100 images 5 are allowed; the first batch has 32."""
    paths = [str(tmp_path / f"{number}.png") for number in range(100)]
    with pytest.raises(ValueError, match="^32 of 32 images cannot be read"):
        kaggle_kernel.predict(network, paths)


def test_probability_that_is_not_finite_is_refused(stub, tmp_path, monkeypatch):
    settings, root = stub
    settings |= write_dataset(root, NAMES, "np.nan")
    with pytest.raises(ValueError, match="NaN"):
        run_notebook(settings, root, tmp_path, monkeypatch)
    assert not (tmp_path / "submission.csv").exists()


def test_files_that_kaggle_adds_to_the_dataset_do_not_matter(stub, tmp_path, monkeypatch):
    settings, root = stub
    (root / "stub-model" / "dataset-metadata.json").write_text("{}")
    assert len(csv_rows(run_notebook(settings, root, tmp_path, monkeypatch))) == 3


def test_time_left_is_printed(stub, tmp_path, monkeypatch, capsys):
    settings, root = stub
    monkeypatch.setenv("KAGGLE_INPUT", str(root))
    monkeypatch.setattr(kaggle_kernel, "PAUSE", -1)
    monkeypatch.setattr(kaggle_kernel, "BATCH_SIZE", 1)
    kaggle_kernel.predict_hidden(settings, str(tmp_path / "a.csv"))
    assert "1 of 2 images, 0 minutes left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "sample", "place"),
    [("data/test", "data/s.csv", "test"), ("data/a/test", "data/s.csv", "a/test"), ("x/test", "data/s.csv", "test")],
)
def test_images_are_named_by_their_place_beside_the_sample(tmp_path, images, sample, place):
    assert inputs_of(tmp_path / images, tmp_path / sample) == {"sample": "s.csv", "images": place}


def test_links_are_named_as_in_the_competitions_data(tmp_path):
    for name in ("disk/photos", "disk/tables", "data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "disk" / "tables" / "s.csv").touch()
    (tmp_path / "data" / "test").symlink_to(tmp_path / "disk" / "photos")
    (tmp_path / "data" / "s.csv").symlink_to(tmp_path / "disk" / "tables" / "s.csv")
    assert inputs_of(tmp_path / "data" / "test", tmp_path / "data" / "s.csv") == {"sample": "s.csv", "images": "test"}


def test_kernel_stands_alone():
    """Python 3.8, its library and numpy, so that it runs on whatever image Kaggle has."""
    tree = ast.parse((ROOT / "competition/package/kaggle_kernel.py").read_text("utf-8"), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names) | {"numpy"}


# --- names, titles and folders


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (("leaf quiz", "me"), "competition"),
        (("https://www.kaggle.com/competitions/leaf-quiz", "me"), "competition"),
        (("leaf-quiz", "Me"), "user"),
        (("leaf-quiz", "me/other"), "user"),
        (("leaf-quiz", "me", "Löwe und Maus"), "title"),
        (("leaf-quiz", "me", "short"), "title"),
        (("leaf-quiz", "me", "------- a"), "title"),
        (("leaf-quiz", "me", "x" * 51), "title"),
        (("a" * 48, "me"), "title"),
        (("leaf-quiz", "me", "Leaf Quiz"), "title"),
    ],
)
def test_names_that_kaggle_would_refuse_are_refused(given, option):
    with pytest.raises(UserError, match=f"--{option} must"):
        CodeCompetition(*given)


def test_title_gives_the_slug():
    target = CodeCompetition("leaf-quiz", "me", "My  leaves_2 net")
    assert target.reference == "me/my-leaves-2-net"


@pytest.fixture
def run_code(public, monkeypatch, capsys):
    """Runs build_submission.py --layout kaggle-code. Returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(build, "SOURCE", tiny_submission())

    def run(*arguments, images=public / "test_images", sample=public / "sample_submission.csv", target=TARGET):
        inputs = ["--images", str(images), "--sample", str(sample), *target]
        code = build_submission.main(["--layout", "kaggle-code", *inputs, *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_command_replaces_only_a_folder_of_its_own(run_code, tmp_path):
    out = tmp_path / "dist" / "kaggle"
    for _ in range(2):
        code, printed, err = run_code("--out", out, "--title", "Leaf network")
        assert (code, err) == (0, "")
        assert "me/leaf-network" in printed
    assert sorted(path.name for path in out.parent.rglob("*.json")) == ["dataset-metadata.json", "kernel-metadata.json"]
    assert [path.name for path in out.parent.iterdir()] == ["kaggle"]
    (out / "thesis.txt").write_text("x")
    code, printed, err = run_code("--out", out)
    assert (code, printed) == (2, "")
    assert "--out must be" in err
    assert (out / "thesis.txt").is_file() and (out / "dataset" / "model.py").is_file()


def test_failure_keeps_the_old_folder(run_code, tmp_path, monkeypatch):
    out = tmp_path / "kaggle"
    (out / "kernel").mkdir(parents=True)
    (out / "kernel" / "old").write_text("x")
    monkeypatch.setattr(
        "competition.package.kaggle_code.extract", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    code, printed, err = run_code("--out", out)
    assert (code, printed) == (2, "")
    assert "full" in err
    assert [path.name for path in out.rglob("*")] == ["kernel", "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["kaggle"]


def test_public_images_may_be_missing(run_code, tmp_path):
    (tmp_path / "test").mkdir()
    code, printed, _ = run_code("--out", tmp_path / "out", images=tmp_path / "test")
    assert code == 0
    assert "is empty: only the run on Kaggle shows whether ids and images match" in printed


def test_images_that_do_not_match_the_sample_are_refused(run_code, tmp_path):
    red_images(tmp_path / "test", 2)
    code, _, err = run_code("--out", tmp_path / "out", images=tmp_path / "test")
    assert code == 2
    assert "no image for 3 of the sample's 5 ids" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["--competition", "--user"])
def test_missing_options_are_named(run_code, missing):
    target = [word for word in zip(TARGET[::2], TARGET[1::2], strict=True) if word[0] != missing]
    code, _, err = run_code(target=[word for pair in target for word in pair])
    assert code == 2
    assert f"add {missing}" in err


def test_wrong_sample_is_found_before_anything_is_exported(run_code, public, tmp_path, monkeypatch):
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr("training.export.export_run", lambda *_: pytest.fail("exported"))
    monkeypatch.setattr("training.run_folder.read_record", lambda folder: SimpleNamespace(classes=EIGHT))
    code, _, err = run_code("--run", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "--sample" in err
