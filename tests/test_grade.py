"""grade_submission.py: what it says of good submissions, and that no bad one gets past it or takes it down."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import NAMES, ROOT, load_module, python, stub, stub_zip, tiny_submission
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

import grade_submission
from competition import worker
from competition.drawings import draw_folder
from competition.sandbox import Isolation, isolation
from grade_submission import STEPS, Rules, grade, report
from training.data import load_folder

FIRST = "import and constructor"
EVERYTHING = Isolation(True, True)


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    """Eight classes of four drawn leaves."""
    folder = tmp_path_factory.mktemp("leaves") / "drawn"
    draw_folder(folder, 4)
    return folder


def failed(result):
    """Name → check of what does not hold; the report names each, with its reason, and the verdict lists them."""
    text = report(result)
    checks = {check.name: check for check in result.checks if not check.passed}
    for check in checks.values():
        assert re.search(rf"^FAIL  {re.escape(check.name)} ", text, re.MULTILINE)
        assert check.reason
        assert check.reason.splitlines()[0] in text
        assert check.mend
        assert f"→ {check.mend}\n" in text
    if checks:
        assert f"verdict   the server would not accept it: {', '.join(checks)}\n" in text
    assert result.passed == (not checks)
    return checks


def graded(tmp_path, source, layout="an2dl2024", **limits):
    """The failed checks of a stub; by the contract of 2024, so that TensorFlow need not be imported."""
    return failed(grade(stub_zip(tmp_path / "stub.zip", source), rules=Rules(layout=layout, **limits)))


def command(*arguments, **options):
    """The command line in a process of its own."""
    return python(ROOT / "grade_submission.py", *arguments, isolated=False, **options)


def same_numbers(text, saved):
    """The text and the JSON give the same checks and the same numbers."""
    for check in saved["checks"]:
        line = next(line for line in text.splitlines() if re.match(rf"(pass|FAIL)  {re.escape(check['name'])}( |$)", line))
        assert line.startswith("pass" if check["passed"] else "FAIL")
        assert line.endswith(check["reason"])
    assert saved["passed"] == ("verdict   the server would accept it\n" in text)
    assert f"used      {saved['seconds']:.1f} s and at most {saved['peak_mb']:,} MB for {saved['images']} images" in text
    scores = saved["scores"]
    if scores:
        assert f"accuracy  {scores['accuracy']:.2%} on {saved['images']} images" in text
        assert f"(95 % interval {scores['accuracy_low']:.1%} to {scores['accuracy_high']:.1%})" in text
        assert f"macro F1 {scores['macro_f1']:.3f}" in text
        for row, name in enumerate(saved["names"]):
            numbers = [f"{scores[f'{key}_{row}']:.3f}" for key in ("precision", "recall", "f1")]
            counts = [str(scores[f"confusion_{row}_{column}"]) for column in range(len(saved["names"]))]
            assert [name, *numbers, *counts] in [line.split() for line in text.splitlines()]


# --- good submissions


def test_real_submission_without_labels(tmp_path):
    with zipfile.ZipFile(tmp_path / "real.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in tiny_submission().rglob("*.*"):
            if "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(tiny_submission()))
        archive.write(tiny_submission() / "metadata", "metadata")
    done = command("real.zip", "--json", "new/grade.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads((tmp_path / "new" / "grade.json").read_text())
    same_numbers(done.stdout, saved)
    assert [check["name"] for check in saved["checks"]][-len(STEPS) - 2 :] == [*STEPS, "limits", "no files left"]
    assert "accuracy  not measured: the 64 images were drawn by this project; give labelled ones with --data" in done.stdout
    assert not saved["labelled"]
    assert saved["scores"] == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "real.zip"]


def test_known_answers(tmp_path, leaves, capsys):
    """A stub that knows every image's answer, some of them wrong: the grade must find exactly that."""
    images = load_folder(leaves)
    answers = images.labels.copy()
    answers[::5] = (answers[::5] * 3 + 1) % 7
    sums = images.images.astype(np.int64)[:, ::2].sum((1, 2, 3))
    assert len(set(sums)) == len(images) == 32
    table = dict(zip(sums.tolist(), answers.tolist(), strict=True))
    source = stub(f"np.array([{table}[int(s)] for s in x[:, ::2].sum((1, 2, 3))], np.int64)")
    path = stub_zip(tmp_path / "known.zip", source)
    assert grade_submission.main([str(path), "--data", str(leaves), "--json", str(tmp_path / "grade.json")]) == 0
    text, saved = capsys.readouterr().out, json.loads((tmp_path / "grade.json").read_text())
    same_numbers(text, saved)
    scores = saved["scores"]
    assert saved["names"] == list(NAMES)
    assert 0.5 < scores["accuracy"] < 1
    assert scores["accuracy"] == pytest.approx(accuracy_score(images.labels, answers))
    assert scores["macro_f1"] == pytest.approx(f1_score(images.labels, answers, average="macro", labels=range(8), zero_division=0))
    table = confusion_matrix(images.labels, answers, labels=range(8))
    assert [[scores[f"confusion_{row}_{column}"] for column in range(8)] for row in range(8)] == table.tolist()


# --- submissions that fail before the first image: a second each

EARLY = {
    "raises at import": ("raise KeyError('weights')", FIRST, r"^KeyError: 'weights'$"),
    "is no Python": ("class model(:", FIRST, "^SyntaxError: "),
    "raises in the constructor": ("class Model:\n    def __init__(self):\n        1 / 0", FIRST, "^ZeroDivisionError: "),
    "no class": ("class model: pass", FIRST, "^model.py has no class Model$"),
    "imports the project": ("import training", FIRST, "^model.py cannot be imported: No module named 'training'$"),
    "imports the grader": ("import competition", FIRST, "^model.py cannot be imported: No module named 'competition'$"),
    "leaves with a smile": ("import os\nos._exit(0)", FIRST, "ended by itself with exit code 0$"),
    "raises SystemExit": ("raise SystemExit(0)", FIRST, "ended by itself with exit code 0$"),
    "kills itself": ("import os\nos.kill(os.getpid(), 9)", FIRST, "ended by signal 9$"),
    "several lines": ("raise ValueError('one\\ntwo')", FIRST, "^ValueError: one"),
}


@pytest.mark.parametrize("case", EARLY)
def test_submission_that_fails_early(tmp_path, case):
    source, name, reason = EARLY[case]
    checks = graded(tmp_path, source)
    assert list(checks) == [name]
    assert re.search(reason, checks[name].reason)


def test_hanging_submission(tmp_path):
    checks = graded(tmp_path, "import time\ntime.sleep(3600)", time_limit=3)
    assert list(checks) == [FIRST, "limits"]
    for check in checks.values():
        assert "it ran longer than the limit of 3 s" in check.reason
    assert "smaller network" in checks["limits"].mend


def test_submission_that_eats_memory(tmp_path):
    source = "import time\nimport numpy as np\nhoard = []\nwhile True:\n    hoard.append(np.ones(5_000_000))\n    time.sleep(0.02)"
    checks = graded(tmp_path, source, memory_limit_mb=400)
    assert list(checks) == [FIRST, "limits"]
    for check in checks.values():
        assert "it used more memory than the limit of 400 MB" in check.reason
    assert checks["limits"].mend == "predict in batches"


def test_children_count_for_the_memory(tmp_path):
    hoard = "import time, numpy as np; a = np.ones(50_000_000); time.sleep(3600)"
    source = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', '{hoard}'])\ntime.sleep(3600)"
    checks = graded(tmp_path, source, memory_limit_mb=300, time_limit=60)
    assert "it used more memory than the limit of 300 MB" in checks["limits"].reason


def test_submission_that_prints_without_end(tmp_path):
    result = grade(stub_zip(tmp_path / "a.zip", "while True:\n    print('x' * 99_999)"))
    checks = failed(result)
    assert list(checks) == [FIRST, "limits"]
    assert checks["limits"].reason == "it printed more than 100 MB"
    assert checks["limits"].mend == "print less"
    assert len(result.log) <= 20_000


@pytest.mark.parametrize("allowed", [EVERYTHING, Isolation(False, False)], ids=["isolated", "not isolated"])
def test_no_process_stays_behind(tmp_path, monkeypatch, allowed):
    """A child in a session of its own, with no parent and nothing in its environment that would give it away."""
    if isolation(sys.executable) != EVERYTHING:
        pytest.skip("this system does not allow to isolate a process")
    monkeypatch.setattr(worker, "isolation", lambda python: allowed)
    seconds = f"{os.getpid()}{time.time_ns() % 10**9}"
    source = f"""
import os, subprocess, time
if os.fork():
    time.sleep(0.5)
    1 / 0
subprocess.Popen(['sleep', '{seconds}'], start_new_session=True, env={{}})
os._exit(0)
"""
    try:
        checks = graded(tmp_path, source)
        assert checks[FIRST].reason == "ZeroDivisionError: division by zero"  # so the child has been started
    finally:
        left = [process for process in psutil.process_iter(["cmdline"]) if seconds in (process.info["cmdline"] or [])]
        for process in left:
            process.kill()
    assert left == []


def test_files_left_behind(tmp_path):
    source = """
import os, sys, tempfile
here = os.path.dirname(os.path.abspath(__file__))
tempfile.mkstemp()  # its own temporary folder is its own matter
open(os.path.expanduser("~/cache"), "w").close()
for name in ("weights.tmp", "cache/a", "cache/b", "cache/c"):
    os.makedirs(os.path.dirname(os.path.join(here, name)), exist_ok=True)
    open(os.path.join(here, name), "w").close()
raise RuntimeError("done")
"""
    checks = graded(tmp_path, source)
    assert checks[FIRST].reason == "RuntimeError: done"
    assert checks["no files left"].reason == (
        "it wrote ingested_program/cache/a, ingested_program/cache/b, ingested_program/cache/c and 1 more"
    )


def test_the_labels_are_not_there(tmp_path, leaves):
    source = """
import os
stage = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
raise RuntimeError([sorted(os.listdir(os.path.join(stage, name))) for name in ("input_data", "output", "program", "ingested_program")])
"""
    program = ["contract.json", "ingestion.py", "metadata.yaml", "runner.py"]
    expected = [["classes.txt", "images.npy"], ["checks.json"], program, ["metadata", "model.py"]]
    result = grade(stub_zip(tmp_path / "a.zip", source), data=leaves)
    assert failed(result)[FIRST].reason == f"RuntimeError: {expected}"
    assert result.labelled
    assert "accuracy  not measured, see the failed checks" in report(result)


def test_environment(tmp_path, monkeypatch):
    """Nothing of the grader's own environment reaches the submission."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SECRET", "x")
    source = f"""
import os, sys
raise RuntimeError([[name for name in ("HOME", "SECRET", "PYTHONPATH") if name in os.environ], {str(ROOT)!r} in sys.path])
"""
    assert graded(tmp_path, source)[FIRST].reason == "RuntimeError: [['HOME'], False]"


# --- submissions that attack

REMOUNT = """
import subprocess
for line in open("/proc/self/mounts"):
    subprocess.run(["mount", "-o", "remount,bind,rw", line.split()[1]], stderr=subprocess.DEVNULL)
"""


@pytest.mark.parametrize("prelude", ["", REMOUNT], ids=["plainly", "after mounting the disks anew"])
def test_writing_elsewhere_and_the_network_are_cut_off(tmp_path, prelude):
    if isolation(sys.executable) != EVERYTHING:
        pytest.skip("this system does not allow to cut a process off from its disks and the network")
    name = f"written-by-a-stub-{os.getpid()}"
    places = [str(folder / name) for folder in (ROOT, tmp_path, Path(tempfile.gettempdir()), Path.home())]
    places += [f"/dev/shm/{name}"]
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0)
        source = f"""{prelude}
import os, socket, tempfile
wrote = []
for place in {places}:
    try:
        open(place, "w").close()
        wrote.append(place)
    except OSError:
        pass
with tempfile.NamedTemporaryFile() as file:
    wrote.append("its own temporary folder")
print("wrote", wrote)
socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=5)
"""
        try:
            result = grade(stub_zip(tmp_path / "a.zip", source))
            there = [place for place in places if os.path.lexists(place)]
        finally:
            for place in places:
                Path(place).unlink(missing_ok=True)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert there == []
    assert "its own temporary folder" in result.log
    assert str(ROOT) not in result.log
    assert re.search("^OSError: .*Network is unreachable", failed(result)[FIRST].reason)
    assert result.notes == ()


def test_a_system_that_allows_no_isolation_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "isolation", lambda python: Isolation(False, False))
    monkeypatch.setattr(grade_submission, "isolation", lambda python: Isolation(False, False))
    result = grade(stub_zip(tmp_path / "a.zip", "import os\nos._exit(7)"))
    assert "ended by itself with exit code 7" in failed(result)[FIRST].reason
    for what in ("the network", "the files outside its folder"):
        assert f"note  this system does not allow to take {what} away from the submission\n" in report(result)


@pytest.mark.parametrize("name", ["plain", "with a space", "link"])
def test_any_temporary_folder_will_do(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    if name == "link":
        (tmp_path / "target").mkdir()
        folder.symlink_to(tmp_path / "target")
    else:
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    checks = graded(tmp_path, "import os\nos._exit(7)")
    assert checks[FIRST].reason == "the process ended by itself with exit code 7"
    assert list(folder.iterdir()) == []


FORGED = {
    "no JSON": "{",
    "no dictionary": "3",
    "no records": '{"checks": [1, 2], "used": {}}',
    "other values": '{"checks": [{"name": "one image", "passed": "yes", "reason": 1, "mend": null, "seconds": "x"}], "used": {}}',
    "nested too deeply": "[" * 200_000,
    "a huge number": '{"checks": [], "used": {"seconds": 1' + "0" * 400 + "}}",
    "too large": " " * 2_000_000,
}


@pytest.mark.parametrize("case", FORGED)
def test_damaged_journal(tmp_path, case):
    """A submission may write it, and then be stopped together with the program that would have mended it."""
    (tmp_path / "checks.json").write_text(FORGED[case])
    assert grade_submission._read_checks(tmp_path / "checks.json") == ({}, {})


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_journal_that_is_no_file(tmp_path, kind):
    """Reading a pipe would never end, hence the process of its own."""
    make = {"pipe": "os.mkfifo(p)", "link": "os.symlink('/dev/zero', p)", "folder": "os.mkdir(p)"}[kind]
    source = f"import os\np = os.path.join(os.path.dirname(__file__), '../output/checks.json')\nos.remove(p)\n{make}\nos._exit(0)"
    (tmp_path / "tmp").mkdir()
    stub_zip(tmp_path / "a.zip", source)
    done = command("a.zip", cwd=tmp_path, timeout=30, environment={"TMPDIR": str(tmp_path / "tmp")})
    assert done.returncode == 1, done.stderr
    assert f"FAIL  {FIRST}  the process ended by itself with exit code 0\n" in re.sub(" +  ", "  ", done.stdout)
    assert list((tmp_path / "tmp").iterdir()) == []


BYTES = {
    "in the reason": ("raise RuntimeError('\\udc80 bad')", "bad"),
    "in a file name": ("import os\nopen(os.path.dirname(os.path.abspath(__file__)).encode() + b'/\\xff', 'w').close()\n1 / 0", "it wrote"),
    "in the log": ("import os\nos.write(1, b'\\xff\\xfe bytes')\n1 / 0", "bytes"),
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes_that_are_no_text(tmp_path, case):
    source, expected = BYTES[case]
    stub_zip(tmp_path / "a.zip", source)
    done = command("a.zip", "--json", "grade.json", cwd=tmp_path, environment={"PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 1, done.stderr
    assert "verdict   the server would not accept it" in done.stdout
    assert expected in done.stdout
    assert not json.loads((tmp_path / "grade.json").read_text("utf-8"))["passed"]


# --- submissions that answer wrongly: these start TensorFlow, so each is graded once

ANSWERS = {
    "column": ("good[:, None]", "one image", r"the shape \[1, 1\] for 1 images"),
    "one-hot": ("np.eye(8, dtype=np.int64)[good]", "one image", r"the shape \[1, 8\] for 1 images"),
    "floats": ("good / 1.0", "one image", "float64, not integers"),
    "out of range": ("good + 8", "one image", r"(\d+) to \1, there are 8 classes"),
    "list": ("good.tolist()", "one image", "list, not a tensor"),
    "wrong length": ("good[: max(1, len(x) // 4 * 4)]", "odd batch", r"the shape \[1\] for 3 images"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_of_the_wrong_form(tmp_path, case):
    answers, name, reason = ANSWERS[case]
    checks = graded(tmp_path, stub(answers))
    assert list(checks) == [name]
    assert re.search(f"^predict returned {reason}", checks[name].reason)
    assert "[1]" in checks[name].mend or "[3]" in checks[name].mend or "0 to 7" in checks[name].mend


def test_answers_that_depend_on_neighbours(tmp_path):
    # Another renaming of the classes for each set of images: that two sets have the same by chance is out of the question.
    checks = graded(tmp_path, stub("np.random.default_rng(x.sum()).permutation(8)[good]"))
    assert list(checks) == ["independence of neighbours", "row permutation", "repeatability", "uint8 images"]
    assert "gets other answers than the same rows among all" in checks["independence of neighbours"].reason
    assert "no batch statistics" in checks["independence of neighbours"].mend


def test_answers_that_depend_on_the_order(tmp_path):
    """Equal for equal beginnings of the rows, as for a shift along the batch."""
    checks = graded(tmp_path, stub("(good + np.concatenate([[0], good[:-1]])) % 8"))
    assert list(checks) == ["row permutation", "repeatability", "uint8 images"]  # all of them ask for the permuted rows
    assert "change with the order" in checks["row permutation"].reason


def test_random_answers(tmp_path):
    checks = graded(tmp_path, stub("np.random.default_rng().integers(0, 8, len(x))"))
    assert {"row permutation", "repeatability", "uint8 images"} <= set(checks)
    assert re.search(r"^a second call gives other answers \(\d+ of \d+\)", checks["repeatability"].reason)


def test_answers_that_depend_on_the_type(tmp_path):
    checks = graded(tmp_path, stub("good if np.asarray(X).dtype != np.uint8 else (good + 1) % 8"))
    assert list(checks) == ["uint8 images"]
    wrong, asked = re.fullmatch(r"uint8 images give other answers than float32 \((\d+) of (\d+)\)", checks["uint8 images"].reason).groups()
    assert wrong == asked


@pytest.mark.parametrize(
    "answers",
    [
        "good - 8",
        "good * 1000",
        "good.astype(bool)",
        "good.astype(complex)",
        "good.astype(str)",
        "good.astype(object)",
        "None",
        "3",
        "x",
        "{0: 1}",
    ],
)
def test_other_answers_of_the_wrong_form(answers):
    """As above, without a process for each."""
    ingestion, submission, _ = asked(answers)
    with pytest.raises(ingestion.Failed) as caught:
        ingestion.answers(submission, None, 5, "float32", 8)
    reason, mend = caught.value.args
    assert reason.startswith("predict returned ")
    assert mend.startswith("return ")


@pytest.mark.parametrize("answers", ["good", "good.astype(np.uint8)", "good.astype(np.int32)", "__import__('tensorflow').constant(good)"])
def test_answers_of_a_right_form(answers):
    ingestion, submission, images = asked(answers)
    got, sure = ingestion.answers(submission, None, 5, "uint8", 8)
    assert got.dtype == np.int64
    assert got.tolist() == (images.astype(np.int64)[:, ::7, ::5].sum((1, 2, 3)) % 8).tolist()
    assert sure is None


def asked(answers):
    """(the ingestion program, a stub that answers it as the runner does but in this process, its images)."""
    programs = ROOT / "competition" / "ingestion_program"
    ingestion, runner = load_module(programs / "ingestion.py", "ingestion"), load_module(programs / "runner.py", "runner")
    source = {}
    exec(stub(answers), source)
    images = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)

    class Submission:
        def ask(self, question):
            header, self.payload = runner.answer(source["model"](), images.astype(question["dtype"]), "model")
            return json.loads(json.dumps(header))

        def array(self, dtype, shape):
            return np.frombuffer(self.payload, dtype, count=int(np.prod(shape))).reshape(shape)

    return ingestion, Submission(), images


# --- zips and arguments


def test_a_zip_that_is_refused_never_runs(tmp_path, capsys):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("submission/model.py", stub())
        archive.writestr("submission/metadata", "")
    result = grade(path)
    checks = failed(result)
    assert list(checks) == ["model.py", "metadata"]
    assert not set(STEPS) & {check.name for check in result.checks}
    assert grade_submission.main([str(path), "--json", str(tmp_path / "grade.json")]) == 1
    assert "it stands in the folder submission/, not at the zip's root" in capsys.readouterr().out
    assert not json.loads((tmp_path / "grade.json").read_text())["passed"]


def test_a_zip_that_cannot_be_unpacked(tmp_path):
    path = stub_zip(tmp_path / "a.zip", stub())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a", "x")
        archive.writestr("a/b", "x")
    checks = failed(grade(path))
    assert set(checks) <= {"names", "unpacking"}
    assert checks


def test_size_limit(tmp_path):
    path = stub_zip(tmp_path / "a.zip", stub())
    assert list(failed(grade(path, rules=Rules(limit_mb=0.0001)))) == ["size"]


def test_no_zip(tmp_path, capsys):
    assert grade_submission.main([str(tmp_path / "none.zip")]) == 1
    assert f"no file at {tmp_path / 'none.zip'}" in capsys.readouterr().out


WRONG = {
    "no data": ["--data", "{tmp}/nothing"],
    "empty data": ["--data", "{tmp}"],
    "no interpreter": ["--python", "{tmp}/python"],
    "JSON in a file": ["--json", "{tmp}/a.txt/grade.json"],
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(tmp_path, capsys, case):
    (tmp_path / "a.txt").write_text("no zip")
    arguments = [argument.format(tmp=tmp_path) for argument in WRONG[case]]
    assert grade_submission.main([str(tmp_path / "a.txt"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(tmp_path) in error
    assert error.count("\n") == 1


def test_help():
    done = command("--help")
    assert done.returncode == 0
    assert re.search(r"examples:\n( +python grade_submission\.py.*\n){2,}", done.stdout)
    assert "exit codes: 0" in done.stdout


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    locked = "import os\nos.makedirs(os.path.expanduser('~/locked/in'))\nos.chmod(os.path.expanduser('~/locked'), 0)\n1 / 0"
    (tmp_path / "zips").mkdir()
    grade(stub_zip(tmp_path / "zips" / "a.zip", locked))
    shutil.rmtree(tmp_path / "zips")
    assert list(tmp_path.iterdir()) == []


def test_hidden_paths_stay_hidden_inside_of_what_is_shown(tmp_path):
    """Labels that lie beside the interpreter, say, whose folder the submission needs."""
    if isolation(sys.executable) != EVERYTHING:
        pytest.skip("this system does not allow to isolate a process")
    stage, shown = tmp_path / "stage", tmp_path / "shown"
    for name in ("program", "home", "tmp"):
        (stage / name).mkdir(parents=True)
    (shown / "labels").mkdir(parents=True)
    (shown / "labels" / "a.txt").write_text("secret")
    (shown / "zip").write_text("secret")
    (shown / "library").write_text("useful")
    code = f"import os; os.chdir({str(shown)!r}); print([open(n).read() for n in ('library', 'zip')], os.listdir('labels'))"
    command = EVERYTHING.command(stage, sys.executable, [shown / "labels", shown / "zip"])
    command.insert(command.index("--"), str(shown))
    done = subprocess.run([*command, sys.executable, "-I", "-c", code], capture_output=True, text=True, env={"PATH": os.defpath})
    assert done.stdout == "['useful', ''] []\n", done.stderr
    assert (shown / "labels" / "a.txt").read_text() == "secret"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_the_submission_ends_with_the_grader(tmp_path, how):
    seconds = f"{os.getpid()}{time.time_ns() % 10**9}"
    stub_zip(tmp_path / "a.zip", f"import subprocess\nprint('started', flush=True)\nsubprocess.run(['sleep', '{seconds}'])")
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    grader = subprocess.Popen(
        [sys.executable, ROOT / "grade_submission.py", "a.zip"],
        cwd=tmp_path,
        env=environment,
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
