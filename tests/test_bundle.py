"""python -m competition: the bundle keeps every rule of Codabench, gives nothing away, and its programs run as they lie in it."""

import ast
import errno
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from helpers import ROOT, python, stub
from PIL import Image

from competition import __main__ as command_line
from competition import bundle
from competition.bundle import Settings, build, description
from competition.drawings import draw_folder
from training.data import load_folder

SIDE, CLASSES, PER_CLASS = 32, 4, 5
COUNT = CLASSES * PER_CLASS
SETTINGS = Settings("Leaves: “round two” & more", "2026-12-01", 120, 3, 40)
FULL = "error: cannot write {}: {}; free the disk or give another --out\n"
TELLTALE = "telltale"  # in the names of the files, the path and the EXIF of the images
PROGRAMS = [path for folder in ("ingestion_program", "scoring_program") for path in sorted((ROOT / "competition" / folder).glob("*.py"))]
RULES = ("Add", "Add_And_Delete", "Add_And_Delete_Multiple", "Force_Last", "Force_Latest_Multiple", "Force_Best")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn leaves under names that would tell their class, with EXIF that would tell where they come from."""
    folder = tmp_path_factory.mktemp(f"{TELLTALE}-leaves") / "images"
    draw_folder(folder, PER_CLASS, classes=CLASSES, side=SIDE)
    for path in sorted(folder.rglob("*.jpg")):
        exif = Image.Exif()
        exif[0x010E] = f"{TELLTALE} {path}"
        with Image.open(path) as image:
            image.save(path.with_name(f"{TELLTALE}-{path.parent.name}-{path.stem}.jpg"), quality="keep", exif=exif)
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def images(folder):
    return load_folder(folder)


def unpacked(path, target):
    """A bundle as the server has it: zip, folder, the text of competition.yaml and what it says."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(target)
    text = (target / "competition.yaml").read_text("utf-8")
    return SimpleNamespace(zip=path, folder=target, text=text, says=yaml.safe_load(text))


@pytest.fixture(scope="module")
def made(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return unpacked(build(images, SETTINGS, folder / "new" / "competition.zip"), folder / "unpacked")


@pytest.fixture(scope="module")
def again(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("again")
    return unpacked(build(images, SETTINGS, folder / "competition.zip"), folder / "unpacked")


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def shown(made):
    return np.load(made.folder / "input_data" / "images.npy", allow_pickle=False)


def lines(path):
    return path.read_text("utf-8").splitlines()


def columns(made):
    return made.says["leaderboards"][0]["columns"]


# --- the zip and competition.yaml


def test_what_lies_where(made):
    assert {path.name for path in made.folder.iterdir()} == {
        *("competition.yaml", "logo.png", "terms.md", "overview.md", "data.md", "evaluation.md"),
        *("input_data", "reference_data", "ingestion_program", "scoring_program"),
    }
    assert files(made.folder / "ingestion_program") == ["contract.json", "ingestion.py", "metadata.yaml", "runner.py"]
    assert files(made.folder / "scoring_program") == ["details.py", "metadata.yaml", "score.py"]
    assert files(made.folder / "input_data") == ["classes.txt", "images.npy"]
    thumbnails = [f"images/{number:05d}.jpg" for number in range(COUNT)]
    assert files(made.folder / "reference_data") == sorted(["classes.txt", "labels.txt", *thumbnails])


def test_the_zip_itself(made):
    with zipfile.ZipFile(made.zip) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9_.]+(/[a-z0-9_.]+)*", name) for name in names)
    assert [path.name for path in made.zip.parent.iterdir()] == ["competition.zip"]


def test_keys_without_which_it_is_rejected(made):
    says = made.says
    assert {"version", "title", "image", "terms", "docker_image", "pages", "tasks", "phases", "leaderboards"} <= set(says)
    assert says["pages"] and says["tasks"] and says["phases"] and says["leaderboards"]
    for value in says["pages"]:
        assert set(value) == {"title", "file"}
    for value in says["tasks"]:
        assert {"index", "name", "input_data", "reference_data", "ingestion_program", "scoring_program"} <= set(value)
    for value in says["phases"]:
        assert {"index", "name", "start", "execution_time_limit", "tasks"} <= set(value)
    for value in says["leaderboards"]:
        assert {"title", "key", "submission_rule", "columns"} <= set(value)
    for value in columns(made):
        assert {"title", "key", "index", "sorting", "precision"} <= set(value)
    assert all(value for key in ("pages", "tasks", "phases", "leaderboards") for entry in says[key] for value in map(str, entry.values()))


def test_values(made):
    says = made.says
    assert made.text.startswith("version: 2\n")
    assert says["version"] == 2
    assert says["title"] == SETTINGS.title
    assert 1 <= len(says["docker_image"]) <= 128
    assert says["enable_detailed_results"] is True
    assert says["registration_auto_approve"] is True
    phase = says["phases"][0]
    assert phase["max_submissions_per_day"] == 3
    assert phase["max_submissions"] == 40
    assert phase["execution_time_limit"] > SETTINGS.seconds  # the programs' own limit comes first, and tells why
    assert json.loads((made.folder / "ingestion_program" / "contract.json").read_text()) == {"class": "model", "seconds": 120}


def test_dates_are_text_to_yaml(made):
    """An unquoted timestamp would be read as a date and cut to midnight."""
    assert [phase["start"] for phase in made.says["phases"]] == ["2026-12-01 00:00:00"]
    assert re.search(r"start: (['\"])2026-12-01 00:00:00\1$", made.text, re.MULTILINE)
    assert not any("end" in phase for phase in made.says["phases"])


def test_the_first_day_is_today_unless_told():
    says = yaml.safe_load(description(Settings()))
    assert says["phases"][0]["start"][:10] in (date.today().isoformat(), date.fromordinal(date.today().toordinal() - 1).isoformat())


def test_leaderboard(made):
    board = made.says["leaderboards"][0]
    assert board["submission_rule"] in RULES
    index = [column["index"] for column in board["columns"]]
    assert index.count(0) == 1
    assert len(set(index)) == len(index)
    assert board["columns"][index.index(0)]["key"] == "accuracy"
    keys = [column["key"] for column in board["columns"]]
    assert len(set(keys)) == len(keys)
    for column in board["columns"]:
        assert 1 <= len(column["title"]) <= 36
        assert column["sorting"] in ("asc", "desc")
        assert isinstance(column["precision"], int)


def test_phases_name_tasks_that_exist(made):
    tasks = [task["index"] for task in made.says["tasks"]]
    assert sorted(set(tasks)) == sorted(tasks)
    for phase in made.says["phases"]:
        assert phase["tasks"]
        assert set(phase["tasks"]) <= set(tasks)


def test_everything_that_is_named_is_there(made):
    named = [made.says["image"], made.says["terms"], *(page["file"] for page in made.says["pages"])]
    assert all((made.folder / name).is_file() for name in named)
    for task in made.says["tasks"]:
        for key in ("input_data", "reference_data", "ingestion_program", "scoring_program"):
            assert (made.folder / task[key]).is_dir()
            assert files(made.folder / task[key])


def test_the_logo_is_a_png(made):
    path = made.folder / made.says["image"]
    assert path.suffix == ".png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) >= 100


def test_pages_and_terms(made, images):
    texts = {name: (made.folder / name).read_text("utf-8") for name in ("terms.md", "overview.md", "data.md", "evaluation.md")}
    assert all(text.strip() for text in texts.values())
    assert not any(re.search(r"[{}]", text) for text in texts.values())  # nothing is left to be filled in
    assert SETTINGS.title in texts["overview.md"]
    assert f"{COUNT} images" in texts["overview.md"]
    assert f"{SIDE}×{SIDE}" in texts["data.md"]
    for number, name in enumerate(images.names):
        assert f"\n{number}. {name}\n" in texts["data.md"]
    for said in (f"[n, {SIDE}, {SIDE}, 3]", f"0 to {CLASSES - 1}", "120 s", "3 submissions a day", "40 in all"):
        assert said in texts["evaluation.md"]


def test_braces_in_a_title_are_only_letters(images, tmp_path):
    made = unpacked(build(images, Settings("{count} {0} of {"), tmp_path / "a.zip"), tmp_path / "a")
    assert made.says["title"] == "{count} {0} of {"
    assert "# {count} {0} of {" in (made.folder / "overview.md").read_text()


def test_commands_of_the_programs(made):
    expected = {
        "ingestion_program": "python3 /app/program/ingestion.py /app/input_data /app/output /app/program /app/ingested_program",
        "scoring_program": "python3 /app/program/score.py /app/input /app/output",
    }
    for name, command in expected.items():
        assert yaml.safe_load((made.folder / name / "metadata.yaml").read_text()) == {"command": command}


def test_the_programs_are_those_of_the_project(made):
    for path in PROGRAMS:
        assert (made.folder / path.parent.name / path.name).read_bytes() == path.read_bytes()


# --- what the participants see gives nothing away


def test_images_and_labels_belong_together(made, images):
    rows = {image.tobytes(): label for image, label in zip(images.images, images.labels, strict=True)}
    assert shown(made).dtype == np.uint8
    assert shown(made).shape == (COUNT, SIDE, SIDE, 3)
    assert len({image.tobytes() for image in shown(made)}) == COUNT
    assert [str(rows[image.tobytes()]) for image in shown(made)] == lines(made.folder / "reference_data" / "labels.txt")
    for part in ("input_data", "reference_data"):
        assert lines(made.folder / part / "classes.txt") == list(images.names)


def test_thumbnails_are_those_of_the_images(made):
    for number in range(COUNT):
        with Image.open(made.folder / "reference_data" / "images" / f"{number:05d}.jpg") as thumbnail:
            assert thumbnail.format == "JPEG"
            difference = np.abs(np.asarray(thumbnail, float) - shown(made)).mean((1, 2, 3))
        assert difference.argmin() == number
        assert difference[number] < 10


def test_the_order_is_drawn_anew(made, again, images):
    """Were it seeded or sorted, a participant could draw it as well."""
    assert sorted(image.tobytes() for image in shown(made)) == sorted(image.tobytes() for image in shown(again))
    assert not np.array_equal(shown(made), shown(again))
    for one in (made, again):
        assert not np.array_equal(shown(one), images.images)
        labels = lines(one.folder / "reference_data" / "labels.txt")
        assert labels != sorted(labels)


def test_no_name_and_no_path_is_left(made, folder, images):
    words = {TELLTALE, str(folder), str(folder.parent), str(ROOT), str(Path.home())} | {Path(path).stem for path in images.paths}
    words = [word.encode() for word in words if len(word) > 5]
    for data in (made.zip.read_bytes(), *(path.read_bytes() for path in made.folder.rglob("*") if path.is_file())):
        assert not [word for word in words if word in data]
    for path in (made.folder / "reference_data" / "images").iterdir():
        assert b"Exif" not in path.read_bytes()
        with Image.open(path) as image:
            assert not image.getexif()
            assert "comment" not in image.info


def test_labels_are_in_the_reference_data_only(made):
    """Nothing of the reference data may lie in what the participants' code can read."""
    labels = (made.folder / "reference_data" / "labels.txt").read_bytes()
    for part in ("input_data", "ingestion_program"):
        assert not any(labels in path.read_bytes() for path in (made.folder / part).iterdir())


def test_names_of_classes(tmp_path):
    """They stand in text files a line each, and on a page."""
    names = ["Äpfel & Birnen", "[#1] 'a': \"b\"", "Rumex × pratensis"]
    draw_folder(tmp_path / "leaves", 2, classes=3, side=16)
    for number, name in enumerate(names, 1):
        (tmp_path / "leaves" / f"Species{number}").rename(tmp_path / "leaves" / name)
    images = load_folder(tmp_path / "leaves")
    made = unpacked(build(images, SETTINGS, tmp_path / "a.zip"), tmp_path / "a")
    assert sorted(images.names) == sorted(names)
    assert lines(made.folder / "reference_data" / "classes.txt") == list(images.names)
    assert all(name in (made.folder / "data.md").read_text("utf-8") for name in names)


def test_more_than_two_gigabytes_of_images(images, tmp_path, monkeypatch):
    """A zip has to be told beforehand that an entry may be large; the limit is made small here, not the images large."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10_000)
    path = build(images, SETTINGS, tmp_path / "a.zip")
    monkeypatch.undo()
    assert shown(unpacked(path, tmp_path / "a")).shape == (COUNT, SIDE, SIDE, 3)


# --- the programs, run from the bundle


def staged(made, folder, source):
    """The folders of the prediction stage, as the worker makes them, with a submission of one model.py."""
    shutil.copytree(made.folder / "ingestion_program", folder / "program")
    shutil.copytree(made.folder / "input_data", folder / "input_data")
    (folder / "output").mkdir()
    (folder / "ingested_program").mkdir()
    (folder / "ingested_program" / "model.py").write_text(source)
    (folder / "ingested_program" / "metadata").write_text("description: a stub\n")
    return folder


def scored(made, folder, prediction, code):
    """The folders of the scoring stage, with the prediction's output and the worker's note of how it ended."""
    shutil.copytree(made.folder / "scoring_program", folder / "program")
    shutil.copytree(made.folder / "reference_data", folder / "input" / "ref")
    shutil.copytree(prediction / "output", folder / "input" / "res")
    note = f"elapsedTime: 3.25\nexitCode: {code}\ningestionElapsedTime: 3.25\ningestionExitCode: {code}\n"
    (folder / "input" / "res" / "metadata").write_text(note)
    (folder / "output").mkdir()
    return folder


def start(stage, cwd, arguments=None):
    """Runs a stage's command as its metadata.yaml says, with the stage in the place of /app, or other arguments."""
    if arguments is None:
        words = shlex.split(yaml.safe_load((stage / "program" / "metadata.yaml").read_text())["command"])
        assert words[0] == "python3"
        arguments = [word.replace("/app", str(stage), 1) for word in words[1:]]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_the_programs_run_from_the_bundle(made, tmp_path):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    prediction = staged(made, tmp_path / "stage one", stub("good % 4"))
    done = start(prediction, elsewhere)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (prediction / "output").iterdir()) == ["checks.json", "predictions.txt"]
    saved = json.loads((prediction / "output" / "checks.json").read_text())
    assert [record["name"] for record in saved["checks"] if record["passed"] is not True] == []
    answers = shown(made).astype(np.int64)[:, ::7, ::5].sum((1, 2, 3)) % 8 % 4
    assert lines(prediction / "output" / "predictions.txt") == [str(answer) for answer in answers]

    scoring = scored(made, tmp_path / "stage two", prediction, 0)
    done = start(scoring, elsewhere)
    assert done.returncode == 0, done.stderr
    scores = json.loads((scoring / "output" / "scores.json").read_text())
    labels = np.array(lines(made.folder / "reference_data" / "labels.txt"), int)
    assert scores["accuracy"] == pytest.approx((answers == labels).mean())
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in scores.values())
    assert {column["key"] for column in columns(made)} <= set(scores)
    assert (scoring / "output" / "scores.txt").is_file()
    page = (scoring / "output" / "detailed_results.html").read_text("utf-8")
    assert "row permutation" in page
    assert "data:image/jpeg" in page
    assert list(elsewhere.iterdir()) == []


def test_a_submission_that_fails_is_refused_with_the_reason(made, tmp_path):
    """Paths relative to the stage this time. The server scores all the same, and must not find a number."""
    prediction = staged(made, tmp_path / "one", "import no_such_module\n")
    arguments = ["program/ingestion.py", "input_data", "output", "program", "ingested_program"]
    done = start(prediction, prediction, arguments)
    assert done.returncode == 1
    assert [path.name for path in (prediction / "output").iterdir()] == ["checks.json"]
    scoring = scored(made, tmp_path / "two", prediction, done.returncode)
    done = start(scoring, scoring, ["program/score.py", "input", "output"])
    assert done.returncode == 1
    assert done.stderr == "refused: the prediction stage ended with exit code 1\n"
    assert [path.name for path in (scoring / "output").iterdir()] == ["detailed_results.html"]
    assert "no_such_module" in (scoring / "output" / "detailed_results.html").read_text("utf-8")


def parsed(path):
    return ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 8))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_import_only_what_the_server_has(path):
    beside = {other.stem for other in path.parent.glob("*.py")}
    allowed = (sys.stdlib_module_names - {"graphlib", "tomllib", "zoneinfo"}) | {"numpy"} | beside  # without what is newer than 3.8
    if path.name == "runner.py":
        allowed |= {"tensorflow", "model"}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module.partition(".")[0] in allowed


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_keep_to_an_older_python(path):
    for node in ast.walk(parsed(path)):
        assert not (isinstance(node, ast.Attribute) and node.attr in ("removeprefix", "removesuffix", "is_relative_to", "bit_count"))
        assert not (isinstance(node, ast.keyword) and node.arg == "strict")
        assert not isinstance(node, getattr(ast, "Match", ()))


# --- the command line


@pytest.fixture
def old(tmp_path):
    """An earlier bundle, in a folder of its own."""
    path = tmp_path / "dist" / "competition.zip"
    path.parent.mkdir()
    path.write_bytes(b"the old bundle")
    return path


def kept(old):
    return old.read_bytes() == b"the old bundle" and [path.name for path in old.parent.iterdir()] == [old.name]


def refused(capsys, *arguments):
    """Runs the command line, which must refuse in one line. Returns the line."""
    assert command_line.main([*map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"error: .+\n", printed.err)
    return printed.err


def test_the_command(folder, old, capsys):
    assert command_line.main([str(folder), "--out", str(old), "--title", "Mine", "--start", "2027-01-31", "--seconds", "60"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert re.fullmatch(rf"{re.escape(str(old))}  [\d.]+ MB: {COUNT} images of {CLASSES} classes\n", printed.out)
    with zipfile.ZipFile(old) as archive:
        says = yaml.safe_load(archive.read("competition.yaml"))
    assert says["title"] == "Mine"
    assert says["phases"][0]["start"] == "2027-01-31 00:00:00"
    assert [path.name for path in old.parent.iterdir()] == [old.name]


WRONG = {
    "empty title": ("--title", ""),
    "blank title": ("--title", "  "),
    "long title": ("--title", "x" * 256),
    "word as date": ("--start", "tomorrow"),
    "no such month": ("--start", "2026-13-01"),
    "short date": ("--start", "2026-2-1"),
    "time": ("--start", "2026-12-01T10:00"),
    "no seconds": ("--seconds", "0"),
    "negative seconds": ("--seconds", "-5"),
    "none a day": ("--per-day", "0"),
    "none in all": ("--in-all", "0"),
    "no image": ("--docker-image", ""),
    "long image": ("--docker-image", "x" * 129),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings(folder, old, capsys, case):
    option, value = WRONG[case]
    assert option in refused(capsys, folder, "--out", old, f"{option}={value}")
    assert kept(old)


def test_settings_that_are_just_right():
    Settings("x" * 255, "2028-02-29", 1, 1, 1, "x" * 128)


@pytest.mark.parametrize("start", ["20260131", "2026-W05-6"])
def test_other_ways_to_write_a_date(folder, old, capsys, start):
    """Python takes them for dates; the server need not."""
    if command_line.main([str(folder), "--out", str(old), "--start", start]) == 2:
        assert "--start" in capsys.readouterr().err
        return
    with zipfile.ZipFile(old) as archive:
        assert yaml.safe_load(archive.read("competition.yaml"))["phases"][0]["start"] == "2026-01-31 00:00:00"


@pytest.mark.parametrize("case", ["missing", "file", "empty", "one class"])
def test_data_that_cannot_be_used(tmp_path, old, capsys, case):
    folder = tmp_path / "data"
    if case == "file":
        folder.write_text("x")
    elif case == "empty":
        folder.mkdir()
    elif case == "one class":
        draw_folder(folder, 2, classes=1, side=16)
    assert str(folder) in refused(capsys, folder, "--out", old)
    assert kept(old)


def test_places_that_cannot_be_written(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.zip").mkdir()
    for out in (tmp_path / "file" / "a.zip", tmp_path / "folder.zip"):
        assert f"cannot write {out}: " in refused(capsys, folder, "--out", out)
    assert files(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["write_input", "write_reference", "logo"])
def test_disk_that_is_full(folder, old, capsys, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bundle, step, full)
    assert (
        refused(capsys, folder, "--out", old)
        == f"error: cannot write {old}: No space left on device; free the disk or give another --out\n"
    )
    assert kept(old)


def test_disk_that_is_full_in_the_middle_of_a_write(folder, old):
    """A real failure: the process may write no file larger than 30 kB."""
    pytest.importorskip("resource", reason="limits of a process are a Unix matter")
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from competition.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(sys.argv[2:]))
"""
    done = python("-c", code, ROOT, folder, "--out", old)
    assert done.returncode == 2, done.stderr
    assert done.stderr == FULL.format(old, "File too large")
    assert kept(old)


@pytest.mark.parametrize("step", ["write_input", "write_reference"])
def test_interrupt(folder, old, capsys, monkeypatch, step):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, step, interrupt)
    assert command_line.main([str(folder), "--out", str(old)]) == 130
    assert capsys.readouterr().err == "\ninterrupted; the old file is as it was\n"
    assert kept(old)


@pytest.mark.parametrize("arguments", [[], ["a", "--seconds", "many"], ["a", "--nonsense"], ["a", "b"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert re.search(r"examples:\n( +python -m competition .+\n){2,}", text)
    for word in ("exit codes: 0", "--out", "--title", "--start", "--seconds", "--per-day", "--in-all", "--docker-image"):
        assert word in text


def test_the_module_runs_by_its_name(tmp_path):
    done = python("-m", "competition", tmp_path / "nowhere", cwd=ROOT, isolated=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no folder at {tmp_path / 'nowhere'}")


def test_make_help_lists_it():
    if not re.search(r"^competition:", (ROOT / "Makefile").read_text(), re.MULTILINE):
        pytest.skip("the Makefile has no target competition")
    if not shutil.which("make"):
        pytest.skip("no make on this system")
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert re.search(r"^  make competition +\S", done.stdout, re.MULTILINE)
