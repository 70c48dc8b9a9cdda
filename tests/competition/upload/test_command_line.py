"""The command line: arguments, help, Ctrl-C, imports, memory and the progress bar."""

import contextlib
import fcntl
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import pytest
from helpers import ROOT, python, stub, stub_zip

import upload_submission

SCRIPT = ROOT / "upload_submission.py"
GOES_ON = "\ninterrupted; submission 4000 goes on at the server, give the same command again to watch it\n"
COMPLETE = ["x.zip", "--server", "https://x.org", "--phase", "7"]


# --- arguments


@pytest.mark.unit
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x.zip"],
        ["x.zip", "--phase", "7"],
        ["x.zip", "--server", "https://x.org"],
        ["--server", "https://x.org", "--phase", "7"],
        [*COMPLETE, "--nonsense"],
        [*COMPLETE, "--phase", "first"],
        [*COMPLETE, "--competition", "first"],
        [*COMPLETE, "--wait", "long"],
        [*COMPLETE, "--wait", "nan"],
        [*COMPLETE, "--wait", "-1"],
        [*COMPLETE, "--limit-mb", "nan"],
        [*COMPLETE, "--limit-mb", "many"],
        [*COMPLETE, "second.zip"],
    ],
    ids=str,
)
def test_missing_and_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        upload_submission.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.unit
@pytest.mark.parametrize("option", ["--token", "--tok", "--password"])
def test_no_option_takes_the_token(server, zip_path, option):
    with pytest.raises(SystemExit) as caught:
        upload_submission.main([str(zip_path), "--server", server.url, "--phase", "7", option, "surely-not"])
    assert caught.value.code == 2
    assert server.calls == []


@pytest.mark.unit
@pytest.mark.parametrize("more", [["a.zip"], ["--phase", "7"]])
def test_login_uploads_nothing(server, more, capsys):
    with pytest.raises(SystemExit) as caught:
        upload_submission.main(["--login", "--server", server.url, *more])
    assert caught.value.code == 2
    assert "--login uploads nothing" in capsys.readouterr().err
    assert server.calls == []


@pytest.mark.integration
def test_help():
    done = python(SCRIPT, "--help", isolated=False)
    assert done.returncode == 0
    assert re.search(r"examples:\n( +(CODABENCH_TOKEN=\S+ )?python upload_submission\.py.*\n){3}", done.stdout)
    options = ["--login", "--dry-run", "--again", "--wait", "--limit-mb", "--token-file", "--competition"]
    for word in ("exit codes: 0", "CODABENCH_TOKEN", *options):
        assert word in done.stdout


@pytest.mark.integration
def test_uploading_imports_neither_training_nor_its_libraries(server, command, tmp_path):
    """From the zip to the scores: an organiser needs none of them."""
    server.statuses, server.late = ["Finished"], 0
    code = "import json, sys, upload_submission as u; u.main(sys.argv[1:]); print(json.dumps(sorted(sys.modules)))"
    environment = {"PYTHONPATH": str(ROOT)}
    done = python("-c", code, *command, "--wait", "0", cwd=tmp_path, isolated=False, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "accuracy  0.9125" in done.stdout
    imported = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert "competition" in imported
    assert not imported & {"training", "tensorflow", "keras", "sklearn", "scipy", "PIL"}


# --- Ctrl-C


@pytest.mark.unit
def test_an_interrupt_while_waiting(server, upload, clock):
    clock.interrupt = 2
    done = upload()
    assert (done.code, done.err) == (130, GOES_ON)
    clock.interrupt = math.inf
    assert upload().code == 0
    assert server.count("submit") == 1


@pytest.mark.unit
def test_an_interrupt_before_the_submission(server, upload, clock, note):
    clock.interrupt = 0
    server.fail("completed", status=503)
    done = upload()
    assert done.code == 130
    assert done.err.endswith("\ninterrupted\n")
    assert not note.path().exists()


@pytest.mark.unit
def test_an_interrupt_while_the_answer_is_unknown(server, upload, clock, note):
    clock.interrupt = 0
    server.fail("submit", effect=True)
    assert upload().code == 130
    assert note.read()["submission"] is None
    clock.interrupt = math.inf
    assert upload().code == 0
    assert server.count("submit") == 1


@pytest.mark.integration
def test_an_interrupt_of_a_process(server, command):
    server.statuses = ["Running"] * 1000
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell's background jobs, and what these start, would ignore the signal.
    with subprocess.Popen(
        [sys.executable, SCRIPT, *command], **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    ) as process:
        assert process.stdout.readline() == "submission 4000\n"
        assert "Running" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (130, GOES_ON)


# --- large zips


def large_zip(path, megabytes):
    """A zip with stored zeros, whose size on the wire is the size it says."""
    stub_zip(path, stub())
    with zipfile.ZipFile(path, "a") as archive, archive.open("weights", "w") as target:
        for _ in range(megabytes):
            target.write(bytes(1 << 20))
    return path


@pytest.mark.integration
def test_memory_does_not_grow_with_the_zip(server, zip_path, upload):
    """And no progress bar is shown for a short upload where there is no terminal."""
    large_zip(zip_path, 100)
    server.sha256, server.statuses, server.speed = None, ["Finished"], 80e6
    tracemalloc.start()
    try:
        done = upload()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        zip_path.unlink()
    assert (done.code, done.err) == (0, "")
    assert peak < 40e6


@pytest.mark.integration
def test_progress(server, zip_path, command):
    """On a terminal: percentage, speed and time left; nothing of it stays at the end."""
    pty = pytest.importorskip("pty", reason="terminals are a Unix matter")
    import termios

    large_zip(zip_path, 16)
    server.sha256, server.statuses, server.late, server.speed = None, ["Finished"], 0, 4e6
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with subprocess.Popen(
        [sys.executable, SCRIPT, *command, "--wait", "0"], stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # an OSError is the end of it
            while part := terminal.read(4096):
                shown += part
        out = process.stdout.read()
    assert process.returncode == 0, shown
    assert out.endswith("accuracy  0.9125\n")
    bars = re.findall(r"uploading: +(\d+)%\|.*?\| [\d.]+M/16\.\d+M \[\d\d:\d\d<\d\d:\d\d, [\d.]+MB/s\]", shown.decode())
    percent = [int(bar) for bar in bars]
    assert len(percent) >= 3, shown
    assert percent == sorted(percent)
    assert percent[0] < 90
    assert shown.decode().rstrip("\r").endswith(" ")
