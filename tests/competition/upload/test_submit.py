"""Submitting: the order of the calls, what is sent, and what is not sent at all."""

import hashlib
import json
import math
import re
import zipfile
from types import SimpleNamespace

import pytest
from helpers import ROOT, python, stub

from competition.upload.codabench import Server
from competition.upload.submit import remote_name

pytestmark = pytest.mark.unit

SCRIPT = ROOT / "upload_submission.py"
WHOLE = ["permission", "competitions", "competition", "competition", "dataset", "storage", "completed", "submit"]


def test_a_whole_run(server, upload, clock, note):
    server.late = 3
    server.scores = [{"column_key": "accuracy", "score": "0.9125000000"}, {"column_key": "F1", "score": "0.5"}]
    done = upload()
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "submission 4000",
        *(f"{5 * number:5} s  {status}" for number, status in enumerate(server.statuses)),
        "accuracy  0.9125",
        "F1        0.5",
    ]
    assert server.endpoints() == [*WHOLE, *["submission"] * 9]
    assert clock.pauses == [5.0] * 8
    assert note.read()["submission"] == 4000
    assert note.read()["file"] == server.submissions[4000].name
    assert note.read()["sha256"] == server.sha256
    assert server.submissions[4000].phase == server.phase


@pytest.mark.integration
def test_a_whole_run_as_a_process(server, command, note, tmp_path):
    server.statuses, server.late = ["Finished"], 0
    done = python(SCRIPT, *command, "--wait", "0", cwd=tmp_path, isolated=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "submission 4000\n    0 s  Finished\naccuracy  0.9125\n"
    assert done.stderr == ""
    assert server.endpoints() == [*WHOLE, "submission"]
    names = [command[0].name, note.path().name, note.path().with_suffix(".lock").name]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("ending", ["", "/", "/api", "/api/"])
def test_addresses_that_mean_the_same(server, upload, ending):
    assert upload(url=server.url + ending).code == 0
    assert upload().code == 0
    assert server.count("submit") == 1


def test_localhost_may_be_plain_http(server, upload):
    assert upload(url=server.url.replace("127.0.0.1", "localhost")).code == 0


@pytest.mark.parametrize(
    ("url", "blob_type"),
    [
        ("https://a.blob.core.windows.net/x?sig=1", {"x-ms-blob-type": "BlockBlob"}),
        ("https://blob.core.windows.net.example.org/x?sig=1", {}),
    ],
)
def test_azure_is_told_the_type_of_blob(zip_path, monkeypatch, url, blob_type):
    sent = {}
    server = Server("https://example.org", "token")
    answer = SimpleNamespace(ok=True, status_code=200, is_redirect=False)
    monkeypatch.setattr(server.session, "put", lambda url, **options: sent.update(url=url, **options) or answer)
    server.put(url, zip_path)
    assert sent["headers"] == {"Content-Type": "application/zip", **blob_type}


# --- the dataset


def test_the_dataset_has_the_five_fields_that_keep_it_from_the_clean_up(server, zip_path, upload, note):
    upload()
    (call,) = [call for call in server.calls if call.endpoint == "dataset"]
    name = note.read()["file"]
    assert json.loads(call.body) == {
        "type": "submission",
        "competition": server.competition,
        "file_name": name,
        "request_sassy_file_name": name,
        "file_size": zip_path.stat().st_size,
    }


@pytest.mark.parametrize(
    ("stem", "start"),
    [
        ("submission", "submission-"),
        ("my raises", "my_raises-"),
        ("Müller é ñ", "Muller_e_n-"),
        ("größte Abgabe", "gro_te_Abgab-"),
        ("a/b\\c:d", "b_c_d-"),
        ("葉", "_-"),
        ("v1.2_x-y", "v1.2_x-y-"),
        ("a" * 300, "a" * 12 + "-"),
    ],
)
def test_the_name_that_is_sent_has_portable_characters_only(tmp_path, stem, start):
    names = {remote_name(tmp_path / f"{stem}.zip") for _ in range(3)}
    assert len(names) == 3
    for name in names:
        assert name.startswith(start)
        assert re.fullmatch(r"[A-Za-z0-9_.-]+\.zip", name)


# --- the competition of a phase


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("phases_listed", [False, True])
def test_the_competition_is_found_from_the_phase(server, upload, paged, phases_listed):
    server.paged, server.phases_listed = paged, phases_listed
    assert upload().code == 0
    assert server.count("competitions") == (2 if paged else 1)
    assert server.count("competition") == (0 if phases_listed else 2)
    assert {dataset.competition for dataset in server.datasets.values()} == {server.competition}


def test_the_competition_is_given(server, upload):
    server.fail("competitions", math.inf, status=404)
    assert upload("--competition", str(server.competition)).code == 0
    assert server.count("competitions") == server.count("competition") == 0
    assert {dataset.competition for dataset in server.datasets.values()} == {server.competition}


def test_a_competition_that_does_not_exist(server, upload):
    done = upload("--competition", "99")
    assert done.code == 1
    assert "competition: " in done.line
    assert "99" in done.line
    assert server.count("submit") == 0


NO_PHASES = {"id": 11, "title": "of another version"}


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("competitions", {"status": 200, "body": []}),
        ("competitions", {"status": 200, "body": {"count": 0, "next": None, "results": []}}),
        ("competitions", {"status": 200, "body": [5, None]}),
        ("competitions", {"status": 200, "body": [{"title": "without id"}]}),
        ("competitions", {"status": 200, "body": [{"id": 12, "phases": None}]}),
        ("competitions", {"status": 200, "body": [{"id": 12, "phases": [{"name": "without id"}]}]}),
        ("competitions", {"status": 200, "body": {"results": 5}}),
        ("competitions", {"status": 200, "body": "<html>"}),
        ("competitions", {"status": 403, "body": {"detail": "hidden"}}),
        ("competitions", {"status": 404}),
        ("competitions", {"status": 302, "headers": {"Location": "/login/"}}),
        ("competitions", {"status": 500}),
        ("competitions", {}),
        ("competition", {"status": 200, "body": NO_PHASES}),
        ("competition", {"status": 404}),
        ("competition", {"status": 200, "body": "<html>"}),
    ],
    ids=str,
)
def test_a_competition_that_cannot_be_found(server, upload, note, endpoint, fault):
    server.fail(endpoint, math.inf, **fault)
    done = upload()
    assert done.code == (3 if fault.get("status") in (None, 500) else 1)
    assert "--competition ID" in done.line
    assert server.datasets == {}
    assert not note.path().exists()
    assert upload("--competition", str(server.competition)).code == 0


def test_a_phase_of_no_competition_of_the_user(server, upload):
    done = upload(phase=99)
    assert done.code == 1
    assert "phase 99" in done.line
    assert "--competition ID" in done.line
    assert server.datasets == {}


def test_a_list_of_competitions_without_end(server, upload, monkeypatch):
    monkeypatch.setattr("competition.upload.codabench.PAGES", 3)
    body = {"results": [], "next": f"{server.url}/api/competitions/?participating_in=true"}
    server.fail("competitions", math.inf, status=200, body=body)
    assert upload().code == 1
    assert server.count("competitions") == 3


@pytest.mark.parametrize("address", ["http://[", 5, "?", ["x"], {}], ids=str)
def test_a_next_page_that_has_no_address(server, upload, address):
    server.fail("competitions", math.inf, status=200, body={"results": [], "next": address})
    assert upload().code == 1
    assert server.count("competitions") == 1


# --- what is not sent at all


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]], ids=str)
def test_no_permission(server, upload, note, arguments):
    server.can = {"can": False, "reason": "Reached maximum\nsubmissions per day"}
    done = upload(*arguments)
    assert done.code == 1
    assert done.line == "error: the server accepts no submission now: Reached maximum submissions per day\n"
    assert server.endpoints() == ["permission"]
    assert not note.path().exists()


def damaged(data, damage):
    """The bytes of a zip with this damage."""
    middle = len(data) // 2
    return {
        "empty": b"",
        "garbage": b"\xff" * 5000,
        "truncated": data[:middle],
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    }[damage]


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "garbage", "truncated", "flipped", "no model", "no metadata", "folder"]
)
def test_a_wrong_zip(server, zip_path, upload, note, damage):
    data = zip_path.read_bytes()
    zip_path.unlink()
    if damage == "folder":
        zip_path.mkdir()
    elif damage.startswith("no "):
        with zipfile.ZipFile(zip_path, "w") as archive:
            archive.writestr(*(("metadata", "") if damage == "no model" else ("model.py", stub())))
    elif damage != "missing":
        zip_path.write_bytes(damaged(data, damage))
    done = upload()
    wrong_input = damage in ("missing", "folder")
    assert done.code == (2 if wrong_input else 1)
    assert ("the zip must " if wrong_input else "not sent, ") in done.line
    assert server.calls == []
    assert not note.path().exists()


@pytest.mark.parametrize("name", ["WEIGHTS", "../outside"])
def test_a_name_that_only_the_grader_refuses_is_a_warning(server, zip_path, upload, name):
    with zipfile.ZipFile(zip_path, "a") as archive:
        archive.writestr(name, "")
    server.sha256 = hashlib.sha256(zip_path.read_bytes()).hexdigest()
    done = upload()
    assert done.code == 0
    assert re.fullmatch(
        r"warning: the server may refuse it, names: the entry '.*' .+; zip the files again.*\n", done.err
    )
    assert server.count("submit") == 1


def test_an_unpacked_size_that_only_the_grader_refuses_is_a_warning(upload, monkeypatch):
    monkeypatch.setattr("competition.package.archive.UNPACKED_LIMIT_MB", 0.1)
    done = upload()
    assert done.code == 0
    assert done.err.startswith("warning: the server may refuse it, unpacked size: ") and done.err.count("\n") == 1


def test_a_check_that_the_server_makes_is_named_first(server, zip_path, upload):
    with zipfile.ZipFile(zip_path, "w") as archive:
        for name in ("model.py", "a", "A"):
            archive.writestr(name, stub())
    done = upload()
    assert done.code == 1
    assert "not sent, metadata: " in done.line
    assert server.calls == []


def test_an_encrypted_zip(server, zip_path, upload):
    data = bytearray(zip_path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of the first entry
    zip_path.write_bytes(data)
    done = upload()
    assert done.code == 1
    assert "not sent, names: " in done.line and "is encrypted" in done.line
    assert server.calls == []


def test_a_zip_above_the_limit(server, upload):
    done = upload("--limit-mb", "0.2")
    assert done.code == 1
    for words in ("not sent, size", "0.3 MB", "0.2 MB"):
        assert words in done.line
    assert server.calls == []
    assert upload("--limit-mb", "0.4").code == 0


def test_a_dry_run(server, zip_path, upload, note):
    done = upload("--dry-run")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"allowed: {zip_path} (0.3 MB) can be submitted to phase {server.phase}\n"
    assert server.endpoints() == ["permission"]
    assert not note.path().exists()


def test_a_dry_run_of_a_zip_that_was_sent(server, upload, note):
    upload()
    before = note.read()
    assert upload("--dry-run").code == 0
    assert server.endpoints()[-1] == "permission"
    assert note.read() == before
