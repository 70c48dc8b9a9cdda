"""A strict local Codabench that fails on request, a clock that does not wait, and the command line against both."""

import hashlib
import json
import math
import os
import socket
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import load_module, stub, stub_zip

import upload_submission
from competition.upload import retries, submit, watch

imitation = load_module(Path(__file__).with_name("codabench.py"), "codabench_imitation")


class Clock:
    """Replaces the module time: sleeping only moves it. Raises KeyboardInterrupt after `interrupt` pauses."""

    def __init__(self):
        self.now, self.pauses, self.interrupt = 0.0, [], math.inf

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        if len(self.pauses) >= self.interrupt:
            raise KeyboardInterrupt
        self.pauses.append(seconds)
        self.now += seconds

    def retries(self):
        """The pauses other than those between two polls of a submission."""
        return [pause for pause in self.pauses if pause != watch.POLL]


@dataclass
class Done:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def error(self):
        """The error message, with the end of the logs where there are any."""
        assert self.err.count("error: ") == 1, self.err
        return self.err[self.err.index("error: ") :]

    @property
    def line(self):
        """The error message, which must be one line."""
        assert self.error.count("\n") == 1, self.error
        return self.error


class NoteFile:
    """The note beside the zip, one for each server and phase."""

    def __init__(self, zip_path, url, phase):
        self._zip_path, self._url, self._phase = zip_path, url, phase

    def path(self, phase=None, url=None):
        server = (url or self._url).removeprefix("http://").replace(":", "_")
        return self._zip_path.with_name(f"{self._zip_path.name}.{server}.phase{phase or self._phase}.upload.json")

    def read(self, phase=None, url=None):
        return json.loads(self.path(phase, url).read_text())


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (retries, submit, watch):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def zip_path(tmp_path):
    """A zip that passes every check, with a name that needs care; 300 kB that do not shrink."""
    path = stub_zip(tmp_path / "größte Abgabe für alle.zip", stub())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights", os.urandom(300_000))
    return path


def only_local(host, *others, resolve=socket.getaddrinfo):
    """Replaces the name service, so that no test leaves this machine."""
    if host not in ("127.0.0.1", "localhost"):
        raise AssertionError(f"{host} was called")
    return resolve(host, *others)


@pytest.fixture
def server(zip_path, monkeypatch, tmp_path):
    """A Codabench that expects this zip. A violation of its rules fails the test."""
    monkeypatch.setenv("CODABENCH_TOKEN", imitation.TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", only_local)
    with imitation.Codabench() as server:
        server.sha256 = hashlib.sha256(zip_path.read_bytes()).hexdigest()
        yield server
    assert server.violations == []


@pytest.fixture
def make_task():
    """Makes a task of a phase with several tasks."""
    return imitation.Task


@pytest.fixture
def note(server, zip_path):
    return NoteFile(zip_path, server.url, imitation.PHASE)


@pytest.fixture
def upload(server, zip_path, note, clock, capsys):
    """Runs the command line on the zip and checks what holds for every command."""

    def run(*arguments, url=None, phase=server.phase):
        address = server.url if url is None else url
        code = upload_submission.main([str(zip_path), "--server", address, "--phase", str(phase), *arguments])
        done = Done(code, *capsys.readouterr())
        part = server.token[:12]  # not even a part of the token is shown
        assert part not in done.out + done.err
        assert "\x1b" not in done.out + done.err
        assert not note.path().is_file() or part.encode() not in note.path().read_bytes()
        assert "Traceback" not in done.err
        assert done.err.count("error: ") == (code in (1, 2, 3)), done.err
        return done

    return run


@pytest.fixture
def command(server, zip_path):
    """The arguments of the same command for a process of its own."""
    return [zip_path, "--server", server.url, "--phase", str(server.phase)]


@pytest.fixture
def failing(server):
    """Makes submissions fail, with a reason and logs."""
    server.statuses = ["Running", "Failed"]
    server.reason = "Ingestion program failed"
    server.logs = {
        "scoring_stdout": "scored nothing\n",
        "prediction_ingestion_stderr": "".join(f"line {number}\n" for number in range(100)),
        "scoring_stderr": "",
        "other": "never shown\n",
    }
    return server


@pytest.fixture
def token_file(server, tmp_path, monkeypatch):
    """A private file with the token, which is not in the environment."""
    monkeypatch.delenv("CODABENCH_TOKEN", raising=False)
    path = tmp_path / "token"
    path.write_text(json.dumps({"host": "127.0.0.1", "token": server.token}))
    path.chmod(0o600)
    return path


@pytest.fixture
def login(server, tmp_path, clock, monkeypatch, capsys):
    """Runs --login with this name and password typed in, and checks that no secret is shown."""
    monkeypatch.delenv("CODABENCH_TOKEN")
    file = tmp_path / "new" / "folder" / "token"

    def run(name="me", password="pä&ss=w?", url=server.url):
        monkeypatch.setattr("builtins.input", lambda prompt="": name)
        monkeypatch.setattr("getpass.getpass", lambda prompt="": password)
        code = upload_submission.main(["--login", "--server", url, "--token-file", str(file)])
        done = Done(code, *capsys.readouterr())
        assert server.token not in done.out + done.err
        assert password not in done.out + done.err
        assert not any(password in str(call.path) for call in server.calls)
        return done

    run.file = file
    return run
