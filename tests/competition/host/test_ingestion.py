"""The ingestion program on a server whose worker protects nothing: every folder of the stage can be written to."""

import hashlib
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT, load_module, python, stub

from competition.package.archive import check_metadata, inspect

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")
hosted = load_module(Path(__file__).with_name("hosted.py"), "hosted")
COUNT, CLASSES = bundles.COUNT, bundles.CLASSES
PROGRAM = ROOT / "competition" / "ingestion_program" / "ingestion.py"
GOOD = stub("good % 4")


def digest(image):
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def good(images):
    """What the stub `GOOD` predicts."""
    return images.astype(np.int64)[:, ::7, ::5].sum((1, 2, 3)) % 8 % 4


@pytest.fixture
def submit(unpacked, tmp_path):
    """Runs the source of a model.py over both stages."""

    def run(source, metadata="", **options):
        path = hosted.submission(tmp_path / "a.zip", source, metadata)
        return hosted.submit(unpacked, tmp_path / "app", path, **options)

    return run


# --- the order of the rows

PRINTS_ROWS = (
    GOOD.replace("import numpy as np", "import hashlib\nimport numpy as np")
    .replace(
        "        good =",
        "        print('rows', *(hashlib.sha256(row.astype(np.uint8)).hexdigest() for row in x))\n        good =",
    )
    .replace(
        "        return",
        "        self.probabilities = np.eye(4, dtype=np.float32)[good % 4] * 0.7 + np.float32(0.075)\n        return",
    )
)


@pytest.mark.integration
def test_rows_have_a_new_order_in_every_run_and_the_answers_that_of_the_images(unpacked, tmp_path):
    path, orders = hosted.submission(tmp_path / "a.zip", PRINTS_ROWS), [[digest(row) for row in unpacked.images]]
    for name in ("first", "second"):
        result = hosted.submit(unpacked, tmp_path / name, path)
        lines = [line.split()[1:] for line in result.prediction.stdout.splitlines() if line.startswith("rows ")]
        one, odd, order = lines[:3]
        assert one == order[:1]
        assert odd == order[:3]
        orders.append(order)
        assert sorted(order) == sorted(orders[0])
        expected = good(unpacked.images)
        assert bundles.lines(result.output / "predictions.txt") == [str(number) for number in expected]
        probabilities = np.load(result.output / "probabilities.npy")
        np.testing.assert_array_equal(probabilities.argmax(1), expected)
        np.testing.assert_allclose(probabilities.max(1), 0.775)
        assert result.scores["accuracy"] == (expected == np.array(unpacked.labels, int)).mean()
    assert len(set(map(tuple, orders))) == 3


@pytest.mark.integration
def test_images_that_exceed_one_call_come_in_several_and_get_the_same_answers(unpacked, tmp_path):
    stage = hosted.lay_out_prediction(
        unpacked, tmp_path / "app", hosted.submission(tmp_path / "a.zip", PRINTS_ROWS), "Model"
    )
    program, seven = stage / "program" / "ingestion.py", 7 * 4 * 3 * bundles.SIDE**2
    program.write_text(re.sub(r"(?m)^CALL_BYTES = [\d_]+", f"CALL_BYTES = {seven + 100}", program.read_text()))
    done = hosted.run_stage(stage)
    assert done.returncode == 0, done.stderr
    calls = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("rows ")]
    assert [len(rows) for rows in calls[:5]] == [1, 3, 7, 7, 6]
    assert sorted(sum(calls[2:5], [])) == sorted(map(digest, unpacked.images))
    expected = good(unpacked.images)
    assert bundles.lines(stage / "output" / "predictions.txt") == [str(number) for number in expected]
    np.testing.assert_array_equal(np.load(stage / "output" / "probabilities.npy").argmax(1), expected)
    record = next(
        record for record in json.loads((stage / "output" / "checks.json").read_text())["checks"] if "done" in record
    )
    assert (record["name"], record["passed"], record["done"]) == ("all images", True, COUNT)


PRINTS_PEAK = """
import os
def peak(process):
    with open("/proc/{}/status".format(process)) as file:
        return next(line.split()[1] for line in file if line.startswith("VmHWM"))
class Model:
    def predict(self, X):
        print("peak", len(X), peak(os.getppid()), peak(os.getpid()))
        return X[:, 0, 0, 0].astype("int64") % 4
"""


@pytest.mark.integration
def test_images_are_in_memory_once_as_bytes_and_once_as_floats(unpacked, tmp_path):
    """126 MB of images. Besides, the ingestion program and the submission's process have some MB each."""
    stage = hosted.lay_out_prediction(
        unpacked, tmp_path / "app", hosted.submission(tmp_path / "a.zip", PRINTS_PEAK), "Model"
    )
    images = np.random.default_rng(0).integers(0, 256, (40, 1024, 1024, 3), np.uint8)
    np.save(stage / "input_data" / "images.npy", images)
    done = hosted.run_stage(stage)
    assert done.returncode == 0, done.stderr
    calls = [list(map(int, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("peak ")]
    assert [count for count, _, _ in calls][2:4] == [39, 1]
    assert max(ingestion for _, ingestion, _ in calls) < 1.5 * images.nbytes / 1000
    assert max(submission for _, _, submission in calls) < 5.5 * images.nbytes / 1000


PEAK_BESIDE_A_LARGE_PARENT = """
import sys, subprocess
import numpy as np
sys.path[0] = sys.argv[1]
import ingestion
images = np.ones((300, 1000, 1000), np.uint8)
submission = ingestion.Submission.__new__(ingestion.Submission)
code = "print(1, flush=True); input()"
submission.process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, start_new_session=True)
submission.process.stdout.readline()  # it has started
print(submission.peak_mb())
submission.end()
print(submission.peak_mb(), submission.process.wait())
"""


@pytest.mark.integration
def test_peak_memory_is_that_of_the_submission_and_not_of_the_images():
    done = python("-c", PEAK_BESIDE_A_LARGE_PARENT, PROGRAM.parent)
    peak, of_the_ended = done.stdout.splitlines()
    assert 1 < int(peak) < 150, done.stderr
    assert int(of_the_ended.split()[0]) > 1


# --- what the submission writes

OVERWRITES = """
import os
for folder, _, names in os.walk(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))):
    for name in names:
        if name != "model.py":
            with open(os.path.join(folder, name), "w") as file:
                file.write({text!r})
"""


@pytest.mark.integration
@pytest.mark.parametrize("text", ["", "a\n" * 100, '{"class": "Other", "seconds": 1}', "raise SystemExit('owned')\n"])
def test_inputs_and_programs_are_not_read_after_the_start(submit, unpacked, text):
    result = submit(OVERWRITES.format(text=text) + GOOD)
    assert result.failed == {}
    assert bundles.lines(result.output / "predictions.txt") == [str(number) for number in good(unpacked.images)]
    assert result.scores["images"] == COUNT


@pytest.mark.integration
def test_more_classes_written_to_the_inputs_are_not_accepted(submit):
    result = submit(OVERWRITES.format(text="a\n" * 100) + stub("good * 0 + 50"))
    assert result.failed["one image"]["reason"] == "predict returned 50 to 50, there are 4 classes"
    assert result.scores == {}


WRITES = {
    "beside model.py": ("ingested_program/cache/a", "it wrote ingested_program/cache/a"),
    "in the working directory": ("program/cache", "it wrote program/cache"),
    "among the inputs": ("input_data/numpy.py", "it wrote input_data/numpy.py"),
    "in the output": ("output/predictions.txt", "it wrote predictions.txt to the output folder"),
    "as the note of the worker": ("output/metadata", "it wrote metadata to the output folder"),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", WRITES)
def test_written_files_are_refused_by_their_name(submit, case):
    name, reason = WRITES[case]
    code = "import os\np = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), {!r})\n"
    result = submit(code.format(name) + "os.makedirs(os.path.dirname(p), exist_ok=True)\nopen(p, 'w').close()\n" + GOOD)
    assert {name: record["reason"] for name, record in result.failed.items()} == {"no files left": reason}
    assert result.scores == {}
    assert reason in result.page


AUDITED = """
import runpy, sys
started, imported = [], []
def audit(event, arguments):
    if event == "subprocess.Popen" and any(str(word).endswith("runner.py") for word in arguments[1]):
        started.append(event)
    elif event == "import" and started:
        imported.append(arguments[0])
sys.addaudithook(audit)
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
print("imported", len(started), imported)
"""
# Nested folders are removed, many checks fail and are printed, probabilities are written, a process is left.
BUSY = """
import os, subprocess
os.makedirs(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "output", "a", "b", "\\udcff"))
subprocess.Popen(["sleep", "60"], start_new_session=True)
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    "source",
    [
        PRINTS_ROWS,
        BUSY + PRINTS_ROWS,
        stub("np.random.default_rng().integers(0, 4, len(x))"),
        stub("good / 1.0"),
        "import os\nos._exit(3)",
        "1 / 0",
    ],
    ids=["good", "busy", "random", "floats", "exits", "raises"],
)
def test_nothing_is_imported_after_the_start(unpacked, tmp_path, source):
    """Also not from the system's libraries, which a submission can overwrite where it is root."""
    path = hosted.submission(tmp_path / "a.zip", source)
    stage = hosted.lay_out_prediction(unpacked, tmp_path / "app", path, "Model")
    done = hosted.run_stage(stage, arguments=["-c", AUDITED, *hosted.command_of(stage)])
    assert done.stdout.splitlines()[-1] == "imported 1 []", done.stderr


@pytest.mark.integration
def test_a_later_import_fails():
    code = "import importlib.util, sys\nsys.path[0] = sys.argv[1]\nimport ingestion\ningestion._forbid_imports()\n"
    done = python("-c", f"{code}import json\nimport wave", PROGRAM.parent)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'wave'" in done.stderr


@pytest.mark.unit
@pytest.mark.parametrize("depth", [1, 3, 1500])
def test_nested_folders_without_permissions_are_removed(tmp_path, depth):
    """Of 1,500 levels the path is longer than the system allows."""
    ingestion = load_module(PROGRAM, "ingestion")
    top = tmp_path / "top"
    top.mkdir()
    here = Path.cwd()
    try:
        os.chdir(top)
        for level in range(depth):
            (Path(f"file{level}")).write_text("x")
            Path("link").symlink_to("/nowhere")
            Path("dddd").mkdir()
            os.chdir("dddd")
        Path("last").mkdir(mode=0)
    finally:
        os.chdir(here)
    if depth < 10:
        for path in sorted(top.rglob("dddd"), reverse=True):
            path.chmod(0)
    ingestion.remove(str(top))
    assert list(tmp_path.iterdir()) == []


# --- reasons in the log

REASONS = {
    "wrong type": (stub("good / 1.0"), "one image", "predict returned float64, not integers", "return tf.argmax"),
    "column": (stub("good[:, None]"), "one image", "predict returned the shape [1, 1]", "return tf.argmax"),
    "time": ("import time\ntime.sleep(3600)", "import and constructor", "longer than the limit of 3 s", "smaller"),
    "exit": ("import os\nos._exit(0)", "import and constructor", "exited with code 0", "do not exit"),
    "chance": (
        stub("np.random.default_rng().integers(0, 4, len(x))"),
        "repeatability",
        "a second call returns other predictions",
        "no random numbers",
    ),
    "control characters": (
        "raise RuntimeError('\\x1b[2J\\nrefused: nothing')",
        "import and constructor",
        "RuntimeError: \\x1b[2J refused: nothing",
        "traceback",
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", REASONS)
def test_both_logs_show_each_failed_check_with_its_reason_and_fix(submit, case):
    source, name, reason, fix = REASONS[case]
    result = submit(source, seconds=3 if case == "time" else 120)
    assert name in result.failed
    for done in (result.prediction, result.scoring):
        lines = done.stderr.splitlines()
        for failed in result.failed:
            line = next(number for number, line in enumerate(lines) if line.startswith(f"- {failed}: "))
            assert lines[line + 1].startswith("  fix: ")
            if failed == name:
                assert reason in lines[line]
                assert fix in lines[line + 1]
        assert "\x1b" not in done.stderr.rpartition("failed checks:")[2]
    assert result.prediction.stderr.count("\nfailed checks:\n") == 1
    assert result.scoring.stderr.endswith(f"refused: failed checks: {', '.join(result.failed)}\n")
    assert result.scores == {}


@pytest.mark.integration
def test_classes_out_of_range_are_no_misuse_of_the_pipes(submit):
    """Probabilities that follow them are read, so that the next check finds its own response."""
    keeps = "        self.probabilities = np.eye(4, dtype=np.float32)[good % 4]\n        return"
    result = submit(stub("good % 4 + 4").replace("        return", keeps))
    reasons = {record["reason"] for record in result.failed.values()}
    assert all(re.fullmatch("predict returned [4-7] to [4-7], there are 4 classes", reason) for reason in reasons)
    assert list(result.failed) == ["one image", "odd batch"]


@pytest.mark.integration
def test_logs_of_a_good_submission_show_no_failed_check(submit):
    result = submit(GOOD)
    assert "failed checks" not in result.prediction.stderr + result.scoring.stderr


# --- metadata


@pytest.mark.integration
def test_missing_metadata_is_the_reason_and_copied_files_are_not_blamed_on_the_submission(submit, tmp_path):
    """Codabench copies such a zip to the output folder before the submission starts."""
    result = submit(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + GOOD, metadata=None)
    assert list(result.failed) == ["metadata"]
    assert "it wrote" not in result.page
    assert "there is no metadata" in result.page
    assert result.prediction.returncode == 1
    assert result.scores == {}
    assert not (tmp_path / "ran").exists()
    assert [path.name for path in result.output.iterdir()] == ["checks.json"]


@pytest.mark.integration
def test_files_of_the_worker_in_the_output_are_removed_without_blame(unpacked, tmp_path):
    path = hosted.submission(tmp_path / "a.zip", GOOD)
    stage = hosted.lay_out_prediction(unpacked, tmp_path / "app", path, "Model")
    (stage / "output" / "predictions.txt").write_text("0\n" * COUNT)
    (stage / "output" / "folder").mkdir()
    assert hosted.run_stage(stage).returncode == 0
    assert sorted(path.name for path in (stage / "output").iterdir()) == ["checks.json", "predictions.txt"]
    checks = json.loads((stage / "output" / "checks.json").read_text())["checks"]
    assert all(record["passed"] for record in checks)


METADATA = {
    "empty": ("", True),
    "description": ("description: mine\n", True),
    "an address": ("program: http://127.0.0.1/\n", False),
    "no key": ("hello\n", False),
    "large": ("description: " + "x" * 10_000, False),
    "a command": ("description: a\ncommand: python3 model.py\n", False),
    "not YAML": ("description: a: b\n", False),
    "a comment": ("description: a #b\n", False),
    "a list": ("description: [a]\n", False),
    "a tab": ("\t\n", False),
    "quoted": ('description: "a"\n', False),
    "no blank": ("description:a\n", False),
    "no text": ("description:\n", False),
    "a number": ("description: 2022\n", True),
    "a date": ("description: 2024-01-01\n", True),
    "yes": ("description: yes\n", True),
    "null": ("description: null\n", True),
    "a tag": ("description: !!int 5\n", False),
    "an alias": ("description: &a b\n", False),
    "indented": ("description: a\n  description: b\n", False),
    "dashes and colons": ("description: -a ?b :c http://d\r\n\r\n", True),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", METADATA)
def test_metadata_is_checked_as_by_the_grader(tmp_path, case):
    text, accepted = METADATA[case]
    ingestion = load_module(PROGRAM, "ingestion")
    (tmp_path / "metadata").write_text(text)
    path = hosted.submission(tmp_path / "a.zip", GOOD, text)
    assert all(check.passed for check in inspect(path)) == accepted
    if accepted:
        assert ingestion.check_metadata(str(tmp_path))
    else:
        with pytest.raises(ingestion.Failed):
            ingestion.check_metadata(str(tmp_path))


WORDS = [
    "description",
    "command",
    ":",
    ": ",
    "#",
    " ",
    "\n",
    "\r\n",
    "\t",
    "a",
    "ü",
    "\x0b",
    "\u2028",
    "\u200b",
    "7",
    "yes",
]
WORDS += list("-?,[]{}&*!|>'\"%@`=~.<")


@pytest.mark.unit
def test_metadata_that_the_zip_check_accepts_is_accepted_and_is_yaml(tmp_path):
    """The ingestion program has no YAML, so it decides by its own rules. Random texts show that they are right."""
    ingestion, draw, accepted = load_module(PROGRAM, "ingestion"), random.Random(0), 0
    for _ in range(800):
        text = "description: " + "".join(draw.choices(WORDS, k=draw.randrange(1, 6)))
        (tmp_path / "metadata").write_bytes(text.encode())
        try:
            assert ingestion.check_metadata(str(tmp_path))
        except ingestion.Failed:
            assert not check_metadata(text).passed, text
            continue
        accepted += 1
        assert isinstance(yaml.safe_load(text), dict), text
    assert accepted > 80


@pytest.mark.integration
@pytest.mark.parametrize("columns", [10_000, 10_001])
def test_probabilities_of_more_classes_are_ignored(submit, columns):
    source = GOOD.replace(
        "        return", f"        self.probabilities = np.zeros((len(x), {columns}), np.float32)\n        return"
    )
    result = submit(source)
    assert result.failed == {}
    assert "accuracy" in result.scores


# --- the pipes

PIPES = {
    "reads nothing": ("import time\ntime.sleep(60)", "longer than the limit of 3 s"),
    "closes both": (
        "import os, time\nos.close(int(__import__('sys').argv[3]))\n"
        "os.close(int(__import__('sys').argv[4]))\ntime.sleep(60)",
        "closed the pipes|longer than",
    ),
    "fills the requests": (
        "import os, sys\np = os.open('/proc/self/fd/' + sys.argv[3], os.O_WRONLY | os.O_NONBLOCK)\n"
        "try:\n    while True:\n        os.write(p, b'x' * 4096)\nexcept BlockingIOError:\n    pass\n"
        + stub("good % 4"),
        "exited with code 1|longer than",
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", PIPES)
def test_misuse_of_the_pipes_ends_in_a_failed_check(submit, case):
    source, reason = PIPES[case]
    result = submit(source, seconds=3)
    assert re.search(reason, "\n".join(record["reason"] for record in result.failed.values()))
    assert result.scores == {}
    assert "Traceback" not in result.prediction.stderr.rpartition("failed checks:")[2]


@pytest.mark.unit
def test_response_is_collected_in_one_buffer(monkeypatch):
    """A copy of all that has come before, at every read, was charged to the submission's time."""
    ingestion = load_module(PROGRAM, "ingestion")
    submission = ingestion.Submission.__new__(ingestion.Submission)
    submission._buffer = buffer = bytearray()
    parts = iter([b'{"kind": "tensor"}\n', *(bytes([number]) * 1000 for number in range(100)), b"rest"])
    monkeypatch.setattr(submission, "_wait", lambda readable, writable: None)
    monkeypatch.setattr(submission, "_send", lambda request: None)
    monkeypatch.setattr(submission, "_responses", 0, raising=False)
    monkeypatch.setattr(ingestion.os, "read", lambda descriptor, size: next(parts))
    assert submission.request({}) == {"kind": "tensor"}
    values = submission.array("u1", (100, 1000))
    assert (values == np.arange(100)[:, None]).all()
    submission._read()
    assert submission._buffer is buffer
    assert buffer == b"rest"
