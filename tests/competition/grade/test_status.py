"""What the grader shows while it runs: the step of the submission, and nothing that the submission wrote."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from helpers import ROOT, stub, stub_zip

from competition.grade import status
from competition.grade.journal import STEPS, without_starting_lines
from competition.grade.status import StatusLine, Steps


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test sets `clock.now`."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, clock, seconds):
    """What is written if the status is given ten times a second."""
    line = StatusLine(stream)
    for tenth in range(round(seconds * 10)):
        clock.now = 100 + tenth / 10
        line(f"at {tenth / 10:.1f} s " + "." * 200)
    line("")
    return stream.getvalue()


@pytest.mark.unit
def test_terminal_has_one_updated_line_that_is_removed_at_the_end(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = shown(Terminal(), clock, 5)
    first, *lines, last = text.split("\r\x1b[K")
    assert (first, last) == ("", "")
    assert lines[0].startswith("at 2.0 s")
    assert re.match("at 4.[789] s", lines[-1])
    assert {len(line) for line in lines} == {39}
    assert "\n" not in text


@pytest.mark.unit
@pytest.mark.parametrize(("seconds", "lines"), [(9, 0), (11, 1), (45, 4)])
def test_elsewhere_there_is_a_plain_line_every_ten_seconds(clock, seconds, lines):
    text = shown(io.StringIO(), clock, seconds)
    assert text.count("\n") == lines
    assert "\r" not in text and "\x1b" not in text


@pytest.mark.unit
def test_nothing_is_written_to_a_terminal_in_the_first_seconds(clock):
    assert shown(Terminal(), clock, 2) == ""


def write(path, *names, **last):
    """A journal whose steps have passed in 3 seconds each, but for the last one, which runs."""
    records = [{"name": name, "passed": True, "reason": "", "fix": "", "seconds": 3.0} for name in names]
    records[-1].update(passed=None, **last)
    path.write_text(json.dumps({"checks": records, "used": {}}))
    return path


@pytest.mark.unit
@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_named_with_its_own_seconds(tmp_path, step):
    steps = Steps(tmp_path / "checks.json", 100, 300)
    assert steps.line(5) == "grading: starting, 5 s so far (5 of at most 300 s)"
    write(tmp_path / "checks.json", "metadata", *STEPS[: STEPS.index(step) + 1])
    assert steps.line(20).startswith(f"grading: {step}, 0 s so far")
    assert steps.line(34).startswith(f"grading: {step}, 14 s so far")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("done", "seconds", "expected"),
    [(0, 10, "expected about 60 s"), (25, 10, "expected about 40 s"), (1, 10, "expected about 300 s"), (0, 70, None)],
)
def test_all_images_has_an_estimate_of_what_is_done_or_of_the_odd_batch(tmp_path, done, seconds, expected):
    """Three images took 3 s, so 60 take about 60 s; 25 of 100 in 10 s are 40 s; never more than the limit."""
    steps = Steps(write(tmp_path / "checks.json", *STEPS[:4], done=done), 60 if done == 0 else 100, 300)
    steps.line(0)
    line = steps.line(seconds)
    assert line.startswith(f"grading: all images, {seconds} s so far")
    assert (expected in line) if expected else ("expected" not in line)


HOSTILE = {
    "names": [{"name": "\x1b[2J", "passed": None, "reason": "", "fix": "", "seconds": 1}],
    "reason": [{"name": STEPS[0], "passed": None, "reason": "\x1b[2J", "fix": "\n", "seconds": 1}],
    "numbers": [
        {"name": STEPS[2], "passed": True, "reason": "", "fix": "", "seconds": 1e300},
        {"name": STEPS[3], "passed": None, "reason": "", "fix": "", "seconds": -1, "done": 1e-300},
    ],
    "text": [{"name": STEPS[3], "passed": None, "reason": "", "fix": "", "seconds": "\x1b[2J"}],
}


@pytest.mark.unit
@pytest.mark.parametrize("case", [*HOSTILE, "pipe", "link", "folder"])
def test_a_forged_journal_shows_no_text_of_its_own_and_does_not_block(tmp_path, case):
    path = tmp_path / "checks.json"
    if case in HOSTILE:
        path.write_text(json.dumps({"checks": HOSTILE[case], "used": {}}))
    else:
        {"pipe": os.mkfifo, "link": lambda p: p.symlink_to("/dev/zero"), "folder": os.mkdir}[case](path)
    steps = Steps(path, 10**6, 300)
    steps.line(0)
    line = steps.line(2)
    assert re.fullmatch(
        rf"grading: (starting|{'|'.join(STEPS)}), 2 s so far(, expected about \d{{1,3}} s)? \(2 of at most 300 s\)",
        line,
    )


STARTING = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795634066.663245   18863 port.cc:153] oneDNN custom operations are on. You may see slightly "
    "different numerical results due to floating-point round-off errors from different computation orders. "
    "To turn them off, set the environment variable `TF_ENABLE_ONEDNN_OPTS=0`.",
    "2024-05-01 10:00:00.123456: I tensorflow/core/util/port.cc:113] oneDNN custom operations are on. You may see.",
    "I0000 00:00:1795634066.826943   18863 cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use "
    "available CPU instructions in performance-critical operations.",
    "2022-11-01 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:193] This TensorFlow binary is "
    "optimized with oneAPI Deep Neural Network Library (oneDNN) to use the following CPU instructions",
    "To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild TensorFlow with the "
    "appropriate compiler flags.",
    "2024-05-01 10:00:00.123456: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] Unable to register "
    "cuDNN factory: Attempting to register factory for plugin cuDNN when one has already been registered",
    "W0000 00:00:1735000000.000000    1234 computation_placer.cc:177] computation placer already registered. Please "
    "check linkage and avoid linking the same target more than once.",
    "E0000 00:00:1735000000.000000    1234 cuda_executor.cc:1228] INTERNAL: CUDA Runtime error: failed call to cuInit: "
    "UNKNOWN ERROR (303)",
]
OWN = [
    "oneDNN custom operations are on.",
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR, says my model",
    "E0000 00:00:1735000000.000000    1234 cpu_allocator.cc:1] Allocation of 600000000 exceeds 10% of free memory",
    "2024-05-01 10:00:00.123456: W tensorflow/core/framework/op_kernel.cc:1] OP_REQUIRES failed: no such op",
    "To enable the following instructions, read the manual",
    "",
]


@pytest.mark.unit
def test_only_the_lines_that_tensorflow_prints_when_it_is_loaded_are_left_out():
    mixed = [line for pair in zip(STARTING, OWN * 2, strict=False) for line in pair]
    assert without_starting_lines("\n".join(mixed)) == "\n".join((OWN * 2)[: len(STARTING)])
    assert without_starting_lines("\r\n".join(STARTING)) == ""


@pytest.mark.integration
def test_the_command_shows_the_step_on_a_terminal_and_removes_it(tmp_path):
    slow = "[time.sleep(3 * (len(x) == 64)), good][1]"
    path = stub_zip(tmp_path / "a.zip", "import time\n" + stub(slow))
    ours, theirs = pty.openpty()
    command = [sys.executable, ROOT / "grade_submission.py", path, "--layout", "an2dl2024"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        text = read_terminal(ours, process).decode()
        out = process.stdout.read()
    assert process.returncode == 0, out
    assert re.search(r"grading: all images, [23] s so far", text)
    assert text.endswith("\r\x1b[K")
    assert "grading:" not in out


def read_terminal(descriptor, process):
    """All bytes that a process writes to a terminal until its end. Kills it if it takes longer than a minute."""
    shown, end = b"", threading.Timer(60, process.kill)
    end.start()
    with contextlib.suppress(OSError), open(descriptor, "rb", buffering=0) as terminal:  # an OSError is the end of it
        while part := terminal.read(4096):
            shown += part
    end.cancel()
    return shown


@pytest.mark.integration
def test_a_terminal_is_read_to_its_end():
    """A read returns at most 4,095 bytes of it, and what is not read blocks the process."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "import sys; sys.stderr.write('x' * 50_000); sys.stderr.write('end')"]
    with subprocess.Popen(command, stderr=theirs) as process:
        os.close(theirs)
        assert read_terminal(ours, process) == b"x" * 50_000 + b"end"
    assert process.returncode == 0
