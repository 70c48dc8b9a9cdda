"""Predicting a folder of images: the table, restarts by shard, bad input, and Ray."""

import contextlib
import csv
import errno
import io
import json
import os
import re
import shutil
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from helpers import NAMES, ROOT, load_module, python, tiny, tiny_recipe, tiny_submission
from PIL import Image

from common.errors import UserError
from common.image_file import read_image
from competition.package.build import pack
from competition.synthetic import draw_folder, draw_images
from training.__main__ import main
from training.inputs import Inputs
from training.model import backbones
from training.predict_folder import shard as shard_module
from training.predict_folder.command import Job, _write
from training.predict_folder.listing import paths, write_listing
from training.predict_folder.shard import Part, ShardPredictor
from training.predict_folder.submitted import PRECISION
from training.predict_folder.table import columns, encode, join
from training.run import train
from training.trained import load_run

pytestmark = pytest.mark.integration

GOOD = ("a.jpg", "b 1.png", "deep/er/c.jpg", "deep/line\nbreak.png", "deep/wide.png", "z.jpg")
BAD = {"deep/cut.jpg": "truncated", "notes.txt": "not an image"}


@pytest.fixture(autouse=True)
def one_precision(monkeypatch):
    """The choice by the processor's speed may differ between two loads of the model."""
    monkeypatch.setenv(PRECISION, "float32")


@pytest.fixture
def photos(tmp_path):
    """Six images, one of another size, two files that are no images, and hidden ones."""
    folder = tmp_path / "photos"
    for name, pixels in zip(GOOD, draw_images(len(GOOD)), strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        (image.resize((120, 96)) if "wide" in name else image).save(path)
    (folder / "notes.txt").write_text("no image")
    (folder / "deep" / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:900])
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "link").symlink_to(folder / "deep")
    return folder


def predict(data, out, *options, model=None):
    """Runs the command in this process. Returns its exit code."""
    return main(
        ["predict", "--data", str(data), "--out", str(out), "--model", str(model or tiny_submission()), *options]
    )


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_has_the_models_probabilities_and_errors_has_the_rest(photos, tmp_path, capsys):
    out = tmp_path / "new" / "predictions.csv"
    assert predict(photos, out, "--shard-size", "3") == 0
    model = load_module(tiny_submission() / "model.py").model(tiny_submission())
    rows = {row["path"].replace("\\n", "\n"): row for row in rows_of(out)}
    assert sorted(rows) == sorted(GOOD)
    expected = model.predict_proba([np.asarray(read_image(photos / name, (96, 96))[0]) for name in rows])
    found = np.array([[row[f"probability_{name}"] for name in NAMES] for row in rows.values()], np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [row["label"] for row in rows.values()] == [NAMES[place] for place in found.argmax(axis=-1)]
    assert [np.float32(row["probability"]) for row in rows.values()] == list(found.max(axis=-1))
    errors = {row["path"]: row["reason"] for row in rows_of(out.parent / "predictions.errors.csv")}
    assert errors.keys() == BAD.keys()
    assert all(BAD[name] in reason for name, reason in errors.items())
    assert sorted(path.name for path in out.parent.iterdir()) == ["predictions.csv", "predictions.errors.csv"]
    printed = capsys.readouterr().out
    assert "2 files are not readable" in printed
    assert "skipped 2 hidden" in printed
    assert "with 6 images" in printed


def test_zip_gives_the_table_of_its_folder(photos, tmp_path):
    source = tiny_submission()
    files = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    pack(files, tmp_path / "submission.zip")
    assert predict(photos, tmp_path / "a.csv") == 0
    assert predict(photos, tmp_path / "b.csv", model=tmp_path / "submission.zip") == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A finished run of three classes, and as the best one of `training auto` in the folder auto."""
    folder = tmp_path_factory.mktemp("run")
    draw_folder(folder / "leaves", 6, classes=3, side=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "tiny", tiny, raising=False)
        train(tiny_recipe(), "tiny", Inputs(folder / "leaves", "none"), folder / "run")
        shutil.copytree(folder / "run", folder / "auto" / "best")
        yield folder


@pytest.mark.parametrize("name", ["run", "auto"])
def test_the_model_of_a_run_predicts(trained_run, tmp_path, name):
    data, out = trained_run / "leaves", tmp_path / "p.csv"
    assert main(["predict", "--data", str(data), "--out", str(out), "--run", str(trained_run / name)]) == 0
    rows, trained = rows_of(out), load_run(trained_run / "run")
    assert len(rows) == 18
    assert list(rows[0]) == ["path", "label", "probability", *(f"probability_Species{k}" for k in (1, 2, 3))]
    images = np.stack([read_image(data / row["path"], (32, 32))[0] for row in rows])
    found = np.array([list(row.values())[3:] for row in rows], np.float32)
    # The exported weights are at half precision.
    np.testing.assert_allclose(found, trained.model.predict(images, verbose=0), atol=0.01)


def test_interrupted_call_continues_with_the_next_shard(photos, tmp_path, monkeypatch, capsys):
    assert predict(photos, tmp_path / "whole.csv", "--shard-size", "2") == 0
    predicted, original = [], ShardPredictor.predict

    def counted(self, part, tick):
        if len(predicted) == 2:
            predicted.append("Ctrl-C")
            raise KeyboardInterrupt
        predicted.append(part)
        return original(self, part, tick)

    monkeypatch.setattr(ShardPredictor, "predict", counted)
    out = tmp_path / "again.csv"
    assert predict(photos, out, "--shard-size", "2") == 130
    assert not out.exists()
    assert len(list((tmp_path / "again.csv.parts").glob("part-*.csv"))) == 2
    assert predict(photos, out, "--shard-size", "2") == 0
    assert len(predicted) == 1 + 4  # four shards, each predicted once
    assert "4 of 8 files are finished" in capsys.readouterr().out
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "again.csv.parts").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("shard_size", "--shard-size"),
        ("top", "--top"),
        ("file", "list of files"),
        ("model", "model"),
        ("data", "--data"),
    ],
)
def test_unfinished_call_with_another_choice_is_refused(photos, tmp_path, monkeypatch, capsys, change, word):
    def interrupt(*_):
        raise KeyboardInterrupt

    out, model = tmp_path / "p.csv", shutil.copytree(tiny_submission(), tmp_path / "model")
    monkeypatch.setattr("training.predict_folder.command.ShardPredictor", interrupt)
    assert predict(photos, out, model=model) == 130
    plan = (tmp_path / "p.csv.parts" / "plan.json").read_text()
    options = {"shard_size": ["--shard-size", "5"], "top": ["--top", "2"]}.get(change, [])
    if change == "file":
        (photos / "new.jpg").write_bytes(b"")
    elif change == "model":
        (model / "model.py").write_text((model / "model.py").read_text() + "\n# changed\n")
    elif change == "data":  # other images with the same names, for example of another camera
        photos = shutil.copytree(photos, tmp_path / "others", symlinks=True)
    assert predict(photos, out, *options, model=model) == 2
    error = capsys.readouterr().err
    assert f"another {word};" in error
    assert json.loads((tmp_path / "p.csv.parts" / "plan.json").read_text()) == json.loads(plan)


def test_a_folder_that_disappears_stops_and_loses_nothing(photos, tmp_path, monkeypatch, capsys):
    """As if a disk is unmounted after the first shard. Mounted again, the command continues."""
    assert predict(photos, tmp_path / "whole.csv", "--shard-size", "2") == 0
    original, away = ShardPredictor.predict, tmp_path / "away"

    def counted(self, part, tick):
        if away.exists() or photos.is_dir() and "a.jpg" in part:
            return original(self, part, tick)
        photos.rename(away)
        photos.mkdir()
        return original(self, part, tick)

    monkeypatch.setattr(ShardPredictor, "predict", counted)
    out = tmp_path / "p.csv"
    assert predict(photos, out, "--shard-size", "2") == 2
    assert "2 of 2 files are not there, the first is notes.txt; mount it again" in capsys.readouterr().err
    assert not out.exists() and len(list((tmp_path / "p.csv.parts").glob("part-*"))) == 1
    photos.rmdir()
    away.rename(photos)
    monkeypatch.setattr(ShardPredictor, "predict", original)
    assert predict(photos, out, "--shard-size", "2") == 0
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_folder_that_disappears_within_a_shard_stops(photos, tmp_path, monkeypatch, capsys):
    read = shard_module._read

    def disappearing(path, size):
        pixels = read(path, size)
        if path.name == "a.jpg":
            photos.rename(tmp_path / "away")
        return pixels

    monkeypatch.setattr(shard_module, "_read", disappearing)
    assert predict(photos, tmp_path / "p.csv") == 2
    assert re.search(r"must be readable until the end, and \d of 8 files are not there", capsys.readouterr().err)
    assert not (tmp_path / "p.csv").exists() and not list((tmp_path / "p.csv.parts").glob("part-*"))


@pytest.mark.parametrize(("left", "code"), [("", 0), ("path,one\n", 2)], ids=["empty", "without its rows"])
def test_a_part_that_lost_its_rows_is_predicted_again_or_named(photos, tmp_path, monkeypatch, capsys, left, code):
    """A power failure may leave an empty file."""
    original = ShardPredictor.predict

    def interrupted(self, part, tick):
        if "z.jpg" in part:
            raise KeyboardInterrupt
        return original(self, part, tick)

    monkeypatch.setattr(ShardPredictor, "predict", interrupted)
    out = tmp_path / "p.csv"
    assert predict(photos, out, "--shard-size", "2") == 130
    (tmp_path / "p.csv.parts" / "part-00000.csv").write_text(left)
    monkeypatch.setattr(ShardPredictor, "predict", original)
    assert predict(photos, out, "--shard-size", "2") == code
    if code:
        part = tmp_path / "p.csv.parts" / "part-00000.csv"
        assert f"{part} is damaged: it has 0 rows and 0 errors of 2 files; remove it" in capsys.readouterr().err
        assert not out.exists()  # no incomplete table
        part.unlink()
        assert predict(photos, out, "--shard-size", "2") == 0
    assert len(rows_of(out)) == 6


def test_errors_of_another_table_are_not_replaced(photos, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.predict_folder.command.ShardPredictor", interrupt)
        assert predict(photos, tmp_path / "p.csv") == 130
    for name in ("p.parquet", "p.errors.csv"):
        (tmp_path / name).write_text("of another call")
    assert predict(photos, tmp_path / "p.csv") == 2
    assert "p.errors.csv is that of" in capsys.readouterr().err
    assert (tmp_path / "p.errors.csv").read_text() == "of another call"


def test_shard_without_a_readable_image_has_no_rows(tmp_path):
    data = tmp_path / "texts"
    data.mkdir()
    (data / "a.txt").write_text("a")
    assert predict(data, tmp_path / "p.csv", "--shard-size", "1", "--top", "1") == 0
    assert (tmp_path / "p.csv").read_text() == "path,label,probability\n"
    assert len(rows_of(tmp_path / "p.errors.csv")) == 1


def test_files_are_decoded_only_a_little_ahead(monkeypatch, tmp_path):
    read = []
    monkeypatch.setattr(shard_module, "AHEAD", 4)
    monkeypatch.setattr(shard_module, "_read", lambda path, size: read.append(path) or str(path))
    results = shard_module._decode_ahead(tmp_path, [str(number) for number in range(100)], (2, 2))
    for number in range(10):
        assert next(results)[0] == str(number)
        assert len(read) <= number + 4
    results.close()
    assert len(read) <= 9 + 4


def test_failing_disk_stops_and_lists_no_image_as_damaged(photos, tmp_path, monkeypatch, capsys):
    original = shard_module.read_file

    def read_file(path):
        if path.name == "z.jpg":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return original(path)

    monkeypatch.setattr(shard_module, "read_file", read_file)
    assert predict(photos, tmp_path / "p.csv") == 2
    assert "z.jpg: Input/output error" in capsys.readouterr().err
    assert not list((tmp_path / "p.csv.parts").glob("part-*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_listed(photos, tmp_path):
    (photos / "z.jpg").chmod(0)
    assert predict(photos, tmp_path / "p.csv") == 0
    assert {"path": "z.jpg", "reason": "Permission denied"} in rows_of(tmp_path / "p.errors.csv")


def test_shards_of_two_precisions_are_refused(tmp_path):
    job = Job(tmp_path, tmp_path / "p.csv")
    job.parts.mkdir()
    _write(job, 0, Part(b"", b"", "bfloat16"))
    with pytest.raises(UserError, match="one precision, got float32 after bfloat16"):
        _write(job, 1, Part(b"", b"", "float32"))
    assert not (job.parts / "part-00001.csv").exists()


def with_code(tmp_path, code):
    """A submission with a line of code at the end of its model.py."""
    folder = shutil.copytree(tiny_submission(), tmp_path / "changed")
    with open(folder / "model.py", "a") as file:
        file.write(f"\n\n{code}\n")
    return folder


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("model.predict_proba = lambda self, X: np.full((len(list(X)), 8), np.nan, np.float32)", "probabilities.*NaN"),
        ("model.predict_proba = lambda self, X: np.zeros((2, 8), np.float32)", "probabilities.*shape"),
        ("raise KeyError('no such')", "cannot be loaded.*no such"),
        ("del model", "cannot be loaded.*model"),
    ],
)
def test_broken_code_is_one_line(photos, tmp_path, capsys, code, words):
    assert predict(photos, tmp_path / "p.csv", model=with_code(tmp_path, code)) == 2
    error = capsys.readouterr().err
    assert re.search(words, error)
    assert error.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "nowhere"}, "--data must be a folder.*nowhere"),
        ({"data": "empty"}, "no visible file"),
        ({"data": "."}, "--out must be outside of --data"),
        ({"out": "p.xlsx"}, "--out must end with .csv or .parquet"),
        ({"out": "taken.csv"}, "taken.csv exists"),
        ({"out": "folder.csv"}, "folder.csv exists"),
        ({"out": "foreign.csv"}, "foreign.csv.parts holds other files"),
        ({"model": "nowhere.zip"}, "no file at.*nowhere.zip"),
        ({"model": "taken.csv"}, "not a zip"),
        ({"model": "empty"}, "--model must be a submission.zip.*--run"),
        ({"run": "empty"}, "no run at"),
        ({"top": "9"}, "--top must be .* 1 to 8.*got 9"),
        ({"workers": "2"}, "--workers has no effect"),
    ],
)
def test_bad_input_is_one_line(photos, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "folder.csv", "foreign.csv.parts"):
        (tmp_path / name).mkdir()
    for name in ("taken.csv", "foreign.csv.parts/file"):
        (tmp_path / name).write_text("x")
    choices = {"data": str(photos), "out": "p.csv", **options}
    if "run" not in options:
        choices = {"model": str(tiny_submission()), **choices}
    arguments = [text for name, value in choices.items() for text in (f"--{name}", value)]
    before = sorted(tmp_path.iterdir())
    assert main(["predict", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert re.search(words, captured.err)
    assert sorted(tmp_path.iterdir()) == before


def test_a_call_that_was_stopped_before_its_plan_is_repeated(photos, tmp_path, monkeypatch, capsys):
    """For example because the disk was full."""

    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    out = tmp_path / "p.csv"
    with monkeypatch.context() as patch:
        patch.setattr("training.predict_folder.command.write_json", full)
        assert predict(photos, out) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert predict(photos, out) == 0
    assert len(rows_of(out)) == 6


@pytest.mark.parametrize("package", ["pyarrow", "ray"])
def test_missing_optional_package_is_named(photos, tmp_path, monkeypatch, capsys, package):
    for name in (package, "pyarrow.parquet"):  # the latter may have been imported before
        monkeypatch.setitem(sys.modules, name, None)
    out, options = {"pyarrow": ("p.parquet", []), "ray": ("p.csv", ["--ray", "local"])}[package]
    assert predict(photos, tmp_path / out, *options) == 2
    assert f"pip install {package}" in capsys.readouterr().err


def test_full_disk_is_one_line_that_names_the_folder(photos, tmp_path):
    """A real failure: the process may not write files larger than 50 bytes."""
    pytest.importorskip("resource", reason="only Unix limits the file size of a process")
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from training.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
sys.exit(main(["predict", "--data", sys.argv[2], "--out", sys.argv[3]]))
"""
    # -B, because Python would leave behind compiled modules that are cut off at the limit.
    done = python("-B", "-c", code, ROOT, photos, tmp_path / "p.csv")
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"error: .*p\.csv\.parts.*: File too large.*\n", done.stderr)


def test_listing_is_sorted_and_cut_into_shards(photos, tmp_path):
    listing = write_listing(photos, tmp_path / "list", 3)
    shards = [paths(listing.read(number)) for number in range(listing.shards)]
    assert [path for part in shards for path in part] == [
        *("a.jpg", "b 1.png", "notes.txt", "z.jpg"),
        *("deep/cut.jpg", "deep/line\nbreak.png", "deep/wide.png", "deep/er/c.jpg"),
    ]
    assert [len(part) for part in shards] == [3, 3, 2] == [listing.size(number) for number in range(listing.shards)]
    assert (listing.files, listing.skipped) == (8, 2)
    assert write_listing(photos, tmp_path / "again", 3).sha256 == listing.sha256


def test_a_link_to_itself_is_skipped_as_a_broken_one(photos, tmp_path):
    (photos / "self").symlink_to("self")
    (photos / "broken").symlink_to("nothing")
    listing = write_listing(photos, tmp_path / "list", 3)
    assert (listing.files, listing.skipped) == (8, 4)


def test_top_columns_are_the_most_probable_classes():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], np.float32)
    table = columns(["x", "y"], probabilities, ("one", "two", "three"), top=2)
    assert list(table) == ["path", "label", "probability", "label_2", "probability_2"]
    assert list(table["label"]) == ["two", "three"]
    assert list(table["label_2"]) == ["three", "one"]
    np.testing.assert_array_equal(table["probability_2"], np.float32([0.3, 0.1]))


def test_csv_keeps_every_bit_of_a_probability():
    probabilities = np.random.default_rng(0).dirichlet([0.1] * 3, 200).astype(np.float32)
    data = encode(columns(['ä,"b'] * 200, probabilities, ("one", "two", "three")), ".csv")
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert rows[0]["path"] == 'ä,"b'
    read = np.array([[row[f"probability_{name}"] for name in ("one", "two", "three")] for row in rows], np.float32)
    np.testing.assert_array_equal(read, probabilities)


def test_parquet_parts_are_joined_with_their_types(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is optional")
    folder = tmp_path / "label=3"  # a folder's name that must not become a column
    folder.mkdir()
    parts = []
    for number, count in enumerate((2, 0, 3)):
        table = columns([f"{number}/{row}" for row in range(count)], np.full((count, 2), 0.5, np.float32), ("a", "b"))
        parts.append(folder / f"part-{number}.parquet")
        parts[-1].write_bytes(encode(table, ".parquet"))
    join(parts, folder / "all.parquet")
    with parquet.ParquetFile(folder / "all.parquet") as file:
        table = file.read()
    assert table.column_names == ["path", "label", "probability", "probability_a", "probability_b"]
    assert [str(kind) for kind in table.schema.types] == ["string", "string", "float", "float", "float"]
    assert table["path"].to_pylist() == ["0/0", "0/1", "2/0", "2/1", "2/2"]


def test_parquet_table_has_the_rows_of_the_csv_table(photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is optional")
    for name in ("one.csv", "two.parquet"):
        assert predict(photos, tmp_path / name, "--shard-size", "3") == 0
    rows, read = rows_of(tmp_path / "one.csv"), parquet.read_table(tmp_path / "two.parquet").to_pylist()
    assert [list(row) for row in read] == [list(row) for row in rows]
    for row, other in zip(read, rows, strict=True):
        assert [row["path"].replace("\n", "\\n"), row["label"]] == [other["path"], other["label"]]
        assert [np.float32(other[name]) for name in list(row)[2:]] == [np.float32(row[name]) for name in list(row)[2:]]


class Died(BaseException):
    """The process of a worker has ended."""


class Actor:
    """A worker in this process. It is made and called again after its end, as often as Ray is told to."""

    def __init__(self, kind, options, arguments):
        self._make = lambda: kind(*arguments)
        self._restarts, self._retries = options["max_restarts"], options["max_task_retries"]
        self._worker = self._make()

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))

    def _call(self, name, arguments):
        for _ in range(1 + self._retries):
            with contextlib.suppress(Died):
                return getattr(self._worker, name)(*arguments)
            if not self._restarts:
                break
            self._restarts, self._worker = self._restarts - 1, self._make()
        raise sys.modules["ray"].exceptions.RayError("The actor died unexpectedly\nand more")


@pytest.fixture
def imitated_ray(monkeypatch):
    """An imitation of Ray with one machine, in this process."""
    ray = ModuleType("ray")
    ray.exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))
    ray.util = SimpleNamespace(
        ActorPool=lambda actors: SimpleNamespace(
            map_unordered=lambda start, values: (start(actors[0], value) for value in values)
        )
    )
    ray.init = ray.shutdown = lambda *arguments, **options: None
    ray.put = ray.get = lambda value: value
    ray.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}]
    ray.remote = lambda kind: SimpleNamespace(
        options=lambda **options: SimpleNamespace(remote=lambda *arguments: Actor(kind, options, arguments))
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util", ray.util)


def dying(monkeypatch, calls):
    """Lets a worker end at these calls for a shard, counted from 1. Returns a list of the loaded predictors."""
    loaded, counted, original, load = [], [], ShardPredictor.predict, ShardPredictor.__init__

    def predict(self, part, *rest):
        counted.append(part)
        if len(counted) in calls:
            raise Died
        return original(self, part, *rest)

    def init(self, *arguments):
        loaded.append(self)
        load(self, *arguments)

    monkeypatch.setattr(ShardPredictor, "predict", predict)
    monkeypatch.setattr(ShardPredictor, "__init__", init)
    return loaded


def test_a_worker_that_ends_is_started_once_more(photos, tmp_path, monkeypatch, imitated_ray):
    assert predict(photos, tmp_path / "one.csv", "--shard-size", "2") == 0
    loaded = dying(monkeypatch, calls={2})
    assert predict(photos, tmp_path / "two.csv", "--shard-size", "2", "--ray", "local") == 0
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert len(loaded) == 2


@pytest.mark.parametrize("calls", [{2, 3}, {2, 4}], ids=["in the same shard", "in another shard"])
def test_a_worker_that_ends_a_second_time_stops_the_command(photos, tmp_path, monkeypatch, capsys, imitated_ray, calls):
    loaded, out = dying(monkeypatch, calls), tmp_path / "p.csv"
    assert predict(photos, out, "--shard-size", "2", "--ray", "local") == 2
    reason = "a worker of Ray failed (The actor died unexpectedly); repeat the command to continue"
    assert capsys.readouterr().err == f"error: {reason}\n"
    assert len(loaded) == 2
    assert len(list((tmp_path / "p.csv.parts").glob("part-*.csv"))) == max(calls) - 2
    assert predict(photos, out, "--shard-size", "2", "--ray", "local") == 0
    assert len(rows_of(out)) == len(GOOD)


@pytest.mark.slow
def test_two_workers_of_ray_give_the_table_of_one_process(photos, tmp_path):
    pytest.importorskip("ray", reason="Ray is optional: pip install ray")
    assert predict(photos, tmp_path / "one.csv", "--shard-size", "2") == 0
    arguments = ["--shard-size", "2", "--ray", "local", "--workers", "2"]
    assert predict(photos, tmp_path / "two.csv", *arguments) == 0
    for name in ("{}.csv", "{}.errors.csv"):
        assert (tmp_path / name.format("two")).read_bytes() == (tmp_path / name.format("one")).read_bytes()


def test_a_cluster_without_cores_is_refused(photos, tmp_path, monkeypatch, capsys, imitated_ray):
    """Its workers have not joined yet."""
    monkeypatch.setattr(sys.modules["ray"], "nodes", lambda: [{"Alive": True, "Resources": {"memory": 1.0}}])
    assert predict(photos, tmp_path / "p.csv", "--ray", "local") == 2
    assert "the cluster has none; wait until its workers join" in capsys.readouterr().err


def test_unreachable_cluster_is_refused_at_once(photos, tmp_path, capsys):
    pytest.importorskip("ray", reason="Ray is optional: pip install ray")
    for address, words in (("127.0.0.1:1", "refused"), ("somewhere", "HOST:PORT")):
        assert predict(photos, tmp_path / "p.csv", "--ray", address) == 2
        assert re.search(words, capsys.readouterr().err)
