"""grade_submission.py: the text, the JSON, the exit codes, and that it cleans up when it is interrupted."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import NAMES, ROOT, load_module, stub, stub_zip, tiny_submission
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

import grade_submission
from common.images import load_folder
from competition.grade import grade as grade_module
from competition.grade.grade import STEPS, Rules
from competition.grade.options import add_options, rules_of
from competition.grade.worker import run as worker_run

pytestmark = pytest.mark.integration

support = load_module(Path(__file__).with_name("grading.py"), "grading")
NUMPY = ["--layout", "an2dl2024"]  # needs no TensorFlow
CONSTRUCTOR, command = support.CONSTRUCTOR, support.command


def assert_same_numbers(text, saved):
    """The text and the JSON have the same checks and the same numbers."""
    lines = text.splitlines()
    for check in saved["checks"]:
        line = next(line for line in lines if re.match(rf"(pass|FAIL)  {re.escape(check['name'])}( |$)", line))
        assert line.startswith("pass" if check["passed"] else "FAIL")
        assert line.endswith(check["reason"])
    assert saved["passed"] == ("verdict   the server would accept it\n" in text)
    used = f"used      {saved['seconds']:.1f} s and at most {saved['peak_mb']:,} MB for {saved['images']} images"
    assert used in text
    scores = saved["scores"]
    if scores:
        assert f"accuracy  {scores['accuracy']:.2%} on {saved['images']} images" in text
        assert f"(95 % interval {scores['accuracy_low']:.1%} to {scores['accuracy_high']:.1%})" in text
        assert f"macro F1 {scores['macro_f1']:.3f}" in text
        for row, name in enumerate(saved["names"]):
            numbers = [f"{scores[f'{key}_{row}']:.3f}" for key in ("precision", "recall", "f1")]
            counts = [scores[f"confusion_{row}_{column}"] for column in range(len(saved["names"]))]
            assert [name, *numbers, str(sum(counts)), str(row), *map(str, counts)] in [line.split() for line in lines]


# --- good submissions


def test_real_submission_passes_without_labels(tmp_path):
    with zipfile.ZipFile(tmp_path / "real.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in tiny_submission().rglob("*.*"):
            if "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(tiny_submission()))
        archive.write(tiny_submission() / "metadata", "metadata")
    done = command("real.zip", "--json", "new/grade.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads((tmp_path / "new" / "grade.json").read_text())
    assert_same_numbers(done.stdout, saved)
    assert [check["name"] for check in saved["checks"]][-len(STEPS) - 2 :] == [*STEPS, "limits", "no files left"]
    assert saved["used"]["precision"] == "float32"  # as the environment of the tests says
    assert "\nprecision float32, on this processor" in done.stdout
    assert re.search("^accuracy  not measured: the 64 images are synthetic.* --data$", done.stdout, re.MULTILINE)
    assert not saved["labelled"]
    assert saved["scores"] == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "real.zip"]


def test_scores_of_known_predictions_are_those_of_scikit_learn(tmp_path, labelled_folder, capsys):
    """A stub that knows the label of every image, and gets some of them wrong."""
    images = load_folder(labelled_folder)
    answers = images.labels.copy()
    answers[::5] = (answers[::5] * 3 + 1) % 7
    sums = images.images.astype(np.int64)[:, ::2].sum((1, 2, 3))
    assert len(set(sums)) == len(images) == 32
    table = dict(zip(sums.tolist(), answers.tolist(), strict=True))
    source = stub(f"np.array([{table}[int(s)] for s in x[:, ::2].sum((1, 2, 3))], np.int64)")
    path, saved_to = stub_zip(tmp_path / "known.zip", source), tmp_path / "grade.json"
    assert grade_submission.main([str(path), "--data", str(labelled_folder), "--json", str(saved_to), *NUMPY]) == 0
    text, saved = capsys.readouterr().out, json.loads(saved_to.read_text())
    assert_same_numbers(text, saved)
    scores = saved["scores"]
    assert saved["names"] == list(NAMES)
    assert 0.5 < scores["accuracy"] < 1
    assert scores["accuracy"] == pytest.approx(accuracy_score(images.labels, answers))
    macro_f1 = f1_score(images.labels, answers, average="macro", labels=range(8), zero_division=0)
    assert scores["macro_f1"] == pytest.approx(macro_f1)
    counts = confusion_matrix(images.labels, answers, labels=range(8))
    assert [[scores[f"confusion_{row}_{column}"] for column in range(8)] for row in range(8)] == counts.tolist()


def test_images_with_a_table_get_the_scores_of_class_folders(tmp_path, labelled_folder, monkeypatch, capsys):
    """The table is hidden from the submission, as the images are."""
    rows, hidden = ["picture,kind"], []
    (tmp_path / "flat").mkdir()
    for path in sorted(labelled_folder.glob("*/*")):
        shutil.copy(path, tmp_path / "flat" / f"{path.parent.name}_{path.name}")
        rows.append(f"{path.parent.name}_{path.stem},{path.parent.name}")
    (tmp_path / "labels.csv").write_text("\n".join(rows), "utf-8")
    monkeypatch.setattr(grade_module, "run", lambda *given: hidden.extend(given[3:4]) or worker_run(*given))
    path = str(stub_zip(tmp_path / "a.zip", stub("good * 0 + 2")))
    grades = []
    for data in ([str(labelled_folder)], [str(tmp_path / "flat"), "--labels", str(tmp_path / "labels.csv")]):
        assert grade_submission.main([path, "--data", *data, "--json", str(tmp_path / "grade.json"), *NUMPY]) == 0
        grades.append(json.loads((tmp_path / "grade.json").read_text()))
    assert grades[0]["scores"] == grades[1]["scores"] and grades[1]["scores"]["accuracy"] == 1 / 8
    assert "labels.csv: column picture has the files" in capsys.readouterr().out
    assert [str(tmp_path / "flat"), str(tmp_path / "labels.csv"), path] in [[*map(str, paths)] for paths in hidden]


@pytest.mark.parametrize("option", [("--labels", "a.csv"), ("--label-columns", "a,b")])
def test_labels_without_images_are_refused(capsys, option):
    assert grade_submission.main(["a.zip", *option]) == 2
    assert capsys.readouterr().err == f"error: {option[0]} is about the images in --data; add --data, or leave it out\n"


# --- bad submissions


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_journal_that_is_no_file_does_not_block_the_grader(tmp_path, kind):
    """Reading a pipe would never end, therefore the process of its own."""
    make = {"pipe": "os.mkfifo(p)", "link": "os.symlink('/dev/zero', p)"}[kind]
    journal = "os.path.join(os.path.dirname(__file__), '../output/checks.json')"
    (tmp_path / "tmp").mkdir()
    stub_zip(tmp_path / "a.zip", f"import os\np = {journal}\nos.remove(p)\n{make}\nos._exit(0)")
    done = command("a.zip", cwd=tmp_path, timeout=30, environment={"TMPDIR": str(tmp_path / "tmp")})
    assert done.returncode == 1, done.stderr
    assert re.search(f"^FAIL  {CONSTRUCTOR} +the process exited with code 0$", done.stdout, re.MULTILINE)
    assert list((tmp_path / "tmp").iterdir()) == []


NO_TEXT = """
import os
os.write(1, b"\\xff\\xfe bytes")
open(os.path.dirname(os.path.abspath(__file__)).encode() + b"/\\xff", "w").close()
raise RuntimeError("\\udc80 bad")
"""


def test_bytes_that_are_no_text_are_printed_and_saved(tmp_path):
    """In the log, in the name of a file, and in the reason."""
    stub_zip(tmp_path / "a.zip", NO_TEXT)
    done = command("a.zip", "--json", "grade.json", cwd=tmp_path, environment={"PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 1, done.stderr
    assert "verdict   the server would not accept it" in done.stdout
    for expected in (" bytes", "it wrote", " bad"):
        assert expected in done.stdout
    assert not json.loads((tmp_path / "grade.json").read_text("utf-8"))["passed"]


def test_refused_zip_exits_with_1(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("submission/model.py", stub())
        archive.writestr("submission/metadata", "")
    assert grade_submission.main([str(tmp_path / "a.zip"), "--json", str(tmp_path / "grade.json")]) == 1
    output = capsys.readouterr().out
    assert re.search("^FAIL  model.py .*submission/.*root", output, re.MULTILINE)
    assert not json.loads((tmp_path / "grade.json").read_text())["passed"]


def test_missing_zip_or_folder_exits_with_2(tmp_path, capsys):
    for path, reason in ((tmp_path / "none.zip", "no file at"), (tmp_path, "is a folder")):
        assert grade_submission.main([str(path)]) == 2
        assert reason in capsys.readouterr().err


# --- arguments and signals


def test_options_are_the_rules_of_the_server():
    parser = argparse.ArgumentParser()
    add_options(parser)
    limits = ["--limit-mb", "7", "--time-limit", "600", "--memory-limit-mb", "900"]
    given = ["a.zip", *limits, "--layout", "an2dl2024", "--size", "48x40", "--classes", "3"]
    assert rules_of(parser.parse_args(given)) == Rules(7, 600, 900, "an2dl2024", (48, 40), 3)
    assert Rules(7, 600, 900) == Rules(limit_mb=7, time_limit=600, memory_limit_mb=900)
    assert rules_of(parser.parse_args(["a.zip"])) == Rules()


WRONG = {
    "no data": ["--data", "{tmp}/nothing"],
    "empty data": ["--data", "{tmp}"],
    "no interpreter": ["--python", "{tmp}/python"],
    "JSON in a file": ["--json", "{tmp}/a.txt/grade.json"],
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_exits_with_2_and_one_line(tmp_path, capsys, case):
    (tmp_path / "a.txt").write_text("no zip")
    arguments = [argument.format(tmp=tmp_path) for argument in WRONG[case]]
    assert grade_submission.main([str(tmp_path / "a.txt"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(tmp_path) in error
    assert error.count("\n") == 1


def test_help_has_examples_and_exit_codes():
    done = command("--help")
    assert done.returncode == 0
    assert re.search(r"examples:\n( +python grade_submission\.py.*\n){2,}", done.stdout)
    assert "exit codes: 0" in done.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_submission_ends_with_the_grader(tmp_path, how):
    seconds = f"{os.getpid()}{time.time_ns() % 10**9}"
    source = f"import subprocess\nprint('started', flush=True)\nsubprocess.run(['sleep', '{seconds}'])"
    stub_zip(tmp_path / "a.zip", source)
    (tmp_path / "tmp").mkdir()
    grader = subprocess.Popen(
        [sys.executable, ROOT / "grade_submission.py", "a.zip"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs would ignore it
    )

    def sleeping():
        return [process for process in psutil.process_iter(["cmdline"]) if seconds in (process.info["cmdline"] or [])]

    wait_until(sleeping)
    grader.send_signal(how)
    error = grader.communicate(timeout=30)[1].decode()
    wait_until(lambda: not sleeping())
    assert grader.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    assert error == ("\ninterrupted\n" if how == signal.SIGINT else "")
    if how != signal.SIGKILL:
        assert list((tmp_path / "tmp").iterdir()) == []


def wait_until(condition, seconds=30):
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop
        time.sleep(0.1)
