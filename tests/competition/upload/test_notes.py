"""The note beside the zip: the same command, given again, watches the submission and sends nothing twice."""

import json
import os
import zipfile

import pytest

from common.errors import UserError
from common.files import locked
from competition.upload import submit
from competition.upload.codabench import checked_url

pytestmark = pytest.mark.unit


def test_the_same_command_again_only_watches(server, upload, note):
    upload()
    before, calls = note.read(), len(server.calls)
    done = upload()
    assert (done.code, done.out) == (0, "submission 4000\n    0 s  Finished\naccuracy  0.9125\n")
    assert server.endpoints()[calls:] == ["submission", "submission"]
    assert note.read() == before


@pytest.mark.parametrize("change", ["zip", "phase", "server"])
def test_anything_else_is_a_new_submission(server, zip_path, upload, note, change):
    upload()
    if change == "zip":
        with zipfile.ZipFile(zip_path, "a") as archive:
            archive.writestr("more", "x")
        server.sha256 = None
    url = server.url.replace("127.0.0.1", "localhost") if change == "server" else None
    phase = 8 if change == "phase" else server.phase
    done = upload(phase=phase, url=url)
    assert (done.code, done.out.splitlines()[0]) == (0, "submission 4001")
    assert len(server.submissions) == 2
    assert note.read(phase, url)["submission"] == 4001


def test_each_phase_has_a_note(server, upload):
    upload()
    upload(phase=8)
    assert upload().out.startswith("submission 4000\n")
    assert upload(phase=8).out.startswith("submission 4001\n")
    assert len(server.submissions) == 2


def test_each_server_has_a_note(server, upload):
    """Two servers may give their phases the same number."""
    other = server.url.replace("127.0.0.1", "localhost")
    upload()
    upload(url=other)
    assert upload().out.startswith("submission 4000\n")
    assert upload(url=other).out.startswith("submission 4001\n")
    assert len(server.submissions) == 2


def test_a_note_without_the_server_in_its_name_is_read(server, upload, zip_path, note):
    """Earlier versions wrote it."""
    upload()
    note.path().rename(zip_path.with_name(f"{zip_path.name}.phase{server.phase}.upload.json"))
    assert upload().out.startswith("submission 4000\n")
    assert upload(url=server.url.replace("127.0.0.1", "localhost")).out.startswith("submission 4001\n")


@pytest.mark.parametrize(
    "url",
    [
        "https://www.codabench.org/",
        "HTTPS://WWW.Codabench.org/api",
        "https://www.codabench.org:443",
        "https://www.codabench.org/api/",
    ],
)
def test_a_server_has_one_address(url):
    assert checked_url(url) == "https://www.codabench.org"


def test_other_ports_and_folders_are_other_servers():
    for url in ("https://a.org:8443/x", "http://127.0.0.1:8000", "http://[::1]:8000", "https://a.org"):
        assert checked_url(url) == url
    with pytest.raises(UserError, match="--server must be an address"):
        checked_url("https://a.org:99999")


def test_again(server, upload):
    upload()
    assert upload("--again").out.startswith("submission 4001\n")
    assert upload().out.startswith("submission 4001\n")
    assert server.count("submit") == 2


def test_a_refusal_after_again_does_not_forget_the_first_submission(server, upload, note):
    upload()
    before = note.read()
    server.fail("submit", status=403, body={"detail": "no more today"})
    assert upload("--again").code == 1
    assert note.read() == before
    assert upload().out.startswith("submission 4000\n")
    assert len(server.submissions) == 1


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"5", b"{}", b"\xff\xfe", b'{"server": "x"}', b'{"surplus": 1}'],
)
def test_a_damaged_note(server, upload, note, text):
    note.path().write_bytes(text)
    done = upload()
    assert done.code == 2
    assert str(note.path()) in done.line
    assert server.calls == []
    assert note.path().read_bytes() == text


def test_a_note_that_is_a_folder(server, upload, note):
    note.path().mkdir()
    assert upload().code == 2
    assert server.calls == []


@pytest.mark.parametrize(("key", "value"), [("submission", "abc"), ("submission", [1]), ("server", 5), ("server", "x")])
def test_a_note_with_a_value_that_none_has(server, upload, note, key, value):
    upload()
    before = server.count("submission")
    note.path().write_text(json.dumps({**note.read(), key: value}))
    assert upload().code == 2
    assert server.count("submission") == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(server, zip_path, upload):
    zip_path.parent.chmod(0o500)
    try:
        done = upload()
    finally:
        zip_path.parent.chmod(0o700)
    assert done.code == 2
    assert server.count("submit") == 0


def test_a_disk_that_is_full_before_the_submission(server, zip_path, upload, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", str(zip_path))

    monkeypatch.setattr(submit, "write_json", full)
    done = upload()
    assert done.code == 2
    assert "No space left on device" in done.line
    assert server.count("submit") == 0


def test_a_disk_that_is_full_after_the_submission(server, upload, monkeypatch):
    def full_at_last(target, value):
        if value["submission"]:
            raise OSError(28, "No space left on device", str(target))
        write_json(target, value)

    write_json = submit.write_json
    with monkeypatch.context() as context:
        context.setattr(submit, "write_json", full_at_last)
        assert upload().code == 2
    assert upload().code == 0
    assert server.count("submit") == 1


def test_two_commands_at_once_submit_once(server, upload, note):
    """The second one finds the first one's lock, and asks the server nothing."""
    with locked(note.path().with_suffix(".lock"), "the upload"):
        done = upload()
    assert done.code == 2
    assert "in use by process" in done.line and "wait until it ends, or end it" in done.line
    assert server.calls == []
    assert upload().code == 0
    assert server.count("submit") == 1


def test_a_dry_run_writes_no_file(server, upload, zip_path):
    assert upload("--dry-run").code == 0
    assert [path.name for path in zip_path.parent.iterdir() if path.is_file()] == [zip_path.name]
