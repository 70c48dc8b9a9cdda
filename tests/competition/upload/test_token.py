"""The token: where it comes from, where it must not go, and --login."""

import json
import os
import stat

import pytest
from helpers import ROOT, python

from competition.upload import codabench

pytestmark = pytest.mark.unit

SCRIPT = ROOT / "upload_submission.py"
LOG = "prediction_ingestion_stderr"


def test_the_token_from_a_file(upload, token_file):
    assert upload("--token-file", str(token_file)).code == 0


def test_the_token_from_the_default_file(upload, token_file, tmp_path):
    default = tmp_path / "home" / ".config" / "codabench" / "token"
    default.parent.mkdir(parents=True)
    token_file.rename(default)
    assert upload().code == 0


def test_the_environment_comes_first(server, upload, token_file, monkeypatch):
    token_file.write_text("another")
    token_file.chmod(0o644)
    monkeypatch.setenv("CODABENCH_TOKEN", f" {server.token}\n")
    assert upload("--token-file", str(token_file)).code == 0


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_a_file_that_others_can_read(server, upload, token_file, mode):
    token_file.chmod(mode)
    done = upload("--token-file", str(token_file))
    assert done.code == 2
    assert f"chmod 600 {token_file}" in done.line
    assert server.calls == []
    token_file.chmod(0o600)
    assert upload("--token-file", str(token_file)).code == 0


@pytest.mark.parametrize("environment", [None, "", " \n"])
def test_no_token(server, upload, token_file, tmp_path, monkeypatch, environment):
    if environment is not None:
        monkeypatch.setenv("CODABENCH_TOKEN", environment)
    done = upload("--token-file", str(tmp_path / "none"))
    assert done.code == 2
    assert "CODABENCH_TOKEN" in done.line
    assert "--login" in done.line
    assert server.calls == []


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"0123456789abcdef", b"\xff\xfe\x00", b"[]", b"5", b"{}", b'{"token": "a"}', b"[" * 100_000]
    + [f'{{"host": "127.0.0.1", "token": "{text}"}}'.encode() for text in ("", "two words", "tökén", "a\\u001bb")],
    ids=range(13),
)
def test_a_file_without_a_token_and_its_host(server, upload, token_file, content):
    """Files of earlier versions held the token alone."""
    token_file.write_bytes(content)
    done = upload("--token-file", str(token_file))
    assert done.code == 2
    assert "log in again with --login" in done.line
    assert str(token_file) in done.line
    assert server.calls == []


@pytest.mark.parametrize("url", ["https://www.codabench.org", "https://127.0.0.1.example.org", "http://localhost:1"])
def test_a_token_of_another_server(server, upload, token_file, url):
    done = upload("--token-file", str(token_file), url=url)
    assert done.code == 2
    assert "is for 127.0.0.1, --server is " in done.line
    assert done.line.endswith("make a token for it with --login\n")
    assert server.calls == []


def test_an_address_is_checked_before_the_token_file(server, upload, token_file):
    done = upload("--token-file", str(token_file), url="http://www.codabench.org")
    assert done.code == 2
    assert "must start with https" in done.line


@pytest.mark.parametrize("ending", ["", "/", "/api/"])
def test_a_token_of_the_same_server_by_another_address(server, upload, token_file, ending):
    assert upload("--token-file", str(token_file), url=server.url + ending).code == 0


def test_a_server_whose_name_cannot_be_one(upload, token_file, monkeypatch):
    monkeypatch.setenv("CODABENCH_TOKEN", "t0ken")
    done = upload(url="https://www..codabench.org")
    assert (done.code, done.line.count("\n")) == (1, 1)
    assert "the address is not valid; check --server" in done.line


def test_a_folder_as_token_file(upload, token_file):
    assert upload("--token-file", str(token_file.parent)).code == 2


@pytest.mark.parametrize("value", ["two words", "tökén", "a\nb", "a\x07b"])
def test_an_environment_without_a_token(server, upload, monkeypatch, value):
    monkeypatch.setenv("CODABENCH_TOKEN", value)
    done = upload()
    assert done.code == 2
    assert value not in done.line
    assert server.calls == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "HTTP://EXAMPLE.ORG",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://127.0.0.1@example.org",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "www.codabench.org",
        "localhost:8000",
        "https://",
        "http://[",
        "https://[::1",
        " ",
    ],
)
def test_an_address_that_the_token_must_not_be_sent_to(server, upload, url):
    done = upload(url=url)
    assert done.code == 2
    assert "--server" in done.line
    assert "https" in done.line
    assert server.calls == []


@pytest.fixture
def netrc(tmp_path, monkeypatch):
    """A login for the very host, which the library sends by itself unless it is prevented."""
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login me password netrc-secret\ndefault login me password netrc-secret\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


def test_a_netrc_file_changes_nothing(failing, upload, netrc):
    assert upload().code == 1
    assert failing.count("log") == 3
    assert not any("Basic" in call.headers.get("authorization", "") for call in failing.calls)


def test_a_netrc_file_and_a_redirected_log(failing, upload, netrc):
    failing.logs = {LOG: "x", "scoring_stdout": "y"}
    location = f"{failing.url}/logs/4000/scoring_stdout?signature=s"
    failing.fail("log", status=302, headers={"Location": location})
    assert upload().code == 1


# --- --login


def test_login_writes_a_private_file(server, login, upload):
    before = os.umask(0)
    try:
        done = login()
    finally:
        os.umask(before)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"the token is in {login.file}\n"
    assert json.loads(login.file.read_text()) == {"host": "127.0.0.1", "token": server.token}
    assert stat.S_IMODE(login.file.stat().st_mode) == 0o600
    assert [file.name for file in login.file.parent.iterdir()] == ["token"]
    assert server.endpoints() == ["login"]
    assert upload("--token-file", str(login.file)).code == 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_password_does_not_follow_a_redirect(server, login, status):
    """With 307 and 308 it would be sent again, perhaps to another host."""
    location = f"{server.url.replace('127.0.0.1', 'localhost')}/api/api-token-auth/"
    server.fail("login", status=status, headers={"Location": location})
    assert login().code == 1
    assert server.endpoints() == ["login"]
    assert not login.file.exists()


def test_a_netrc_file_is_not_used_to_log_in(server, login, netrc):
    assert login().code == 0
    assert not any("authorization" in call.headers for call in server.calls)


def test_login_writes_to_a_new_private_file_that_no_other_command_uses(login, monkeypatch):
    """A temporary file that another command left, or writes at this moment, stays as it is."""
    login.file.parent.mkdir(parents=True)
    other = login.file.with_name(f".tmp-{login.file.name}")
    other.write_text("of another command")
    seen = []

    def replace(source, target):
        seen.append((source.name, stat.S_IMODE(source.stat().st_mode)))
        return original(source, target)

    original = os.replace
    monkeypatch.setattr(os, "replace", replace)
    assert login().code == login().code == 0
    assert other.read_text() == "of another command"
    assert len({name for name, _ in seen}) == 2
    assert {mode for _, mode in seen} == {0o600}


def test_login_replaces_a_file_that_others_can_read(server, login):
    login.file.parent.mkdir(parents=True)
    login.file.write_text("old")
    login.file.chmod(0o644)
    assert login().code == 0
    assert stat.S_IMODE(login.file.stat().st_mode) == 0o600
    assert json.loads(login.file.read_text()) == {"host": "127.0.0.1", "token": server.token}


def test_login_with_a_wrong_password(server, login):
    done = login(password="wrong-password")
    assert done.code == 1
    assert "Unable to log in with provided credentials." in done.line
    assert not login.file.parent.exists() or not list(login.file.parent.iterdir())
    assert server.count("login") == 1


@pytest.mark.parametrize(
    "body", ["<html>", "[]", "{}", '{"token": null}', '{"token": 5}', '{"token": ""}', '{"token": "two words"}']
)
def test_login_that_gives_no_token(server, login, body):
    server.fail("login", status=200, body=body)
    done = login()
    assert done.code == 1
    assert done.line
    assert not login.file.exists()


def test_login_that_fails_keeps_the_old_file(server, login):
    login.file.parent.mkdir(parents=True)
    login.file.write_text("old")
    server.fail("login", status=403)
    assert login().code == 1
    assert login.file.read_text() == "old"


def test_login_is_tried_again(server, login, clock):
    server.fail("login", status=503)
    assert login().code == 0
    assert clock.pauses == [1]


def test_login_over_plain_http(server, login):
    assert login(url="http://example.org").code == 2
    assert server.calls == []


def test_login_is_interrupted(login, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(codabench.requests, "post", interrupt)
    assert login().code == 130
    assert not login.file.exists()


@pytest.mark.integration
def test_login_without_a_terminal(server, tmp_path):
    done = python(SCRIPT, "--login", "--server", server.url, "--token-file", tmp_path / "token", isolated=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert server.calls == []
