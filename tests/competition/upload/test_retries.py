"""Failures that pass and failures that do not, by call: what is tried again, after which pause, and what is said."""

import math
import re
import socket

import pytest

pytestmark = pytest.mark.unit

PAUSES = [1, 2, 4, 8, 16]  # between the six tries
REPEATABLE = ("permission", "competitions", "competition", "dataset", "storage", "completed", "submission")
ALL = (*REPEATABLE, "submit")
DROP = {}


def closed_port():
    """A port of this machine where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("endpoint", REPEATABLE)
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 502, "body": "<html>"},
        {"status": 503},
        {"status": 429},
        {"status": 408},
        {"status": 524},
        DROP,
    ],
    ids=str,
)
def test_a_failure_that_passes(server, upload, clock, endpoint, fault):
    server.fail(endpoint, **fault)
    done = upload()
    assert done.code == 0
    assert clock.retries() == [1]
    assert re.fullmatch(r".+: .+; trying again in 1 s\n", done.err)
    assert server.count("submit") == len(server.submissions) == 1


def test_the_pauses_double(server, upload, clock):
    server.fail("dataset", 5, status=503)
    assert upload().code == 0
    assert clock.retries() == PAUSES


@pytest.mark.parametrize("endpoint", REPEATABLE)
@pytest.mark.parametrize(
    ("fault", "reason"), [({"status": 503, "body": {"detail": "under repair"}}, "under repair"), (DROP, "broken off")]
)
def test_a_failure_that_stays(server, upload, clock, endpoint, fault, reason):
    server.fail(endpoint, math.inf, **fault)
    done = upload()
    assert done.code == 3
    assert clock.retries() == PAUSES
    assert server.count(endpoint) == 6
    assert reason in done.line
    assert len(server.submissions) == (endpoint == "submission")
    server.fix()
    assert upload().code == 0  # the same command, given again
    assert len(server.submissions) == server.count("submit") == 1


@pytest.mark.parametrize(
    ("requested", "pause"), [("7", 7), ("0", 0), ("9999999", 300), ("soon", 1), ("-3", 1), ("1.5", 1), ("²", 1)]
)
@pytest.mark.parametrize("endpoint", ["permission", "submit"])
def test_retry_after(server, upload, clock, endpoint, requested, pause):
    server.fail(endpoint, status=429, headers={"Retry-After": requested})
    assert upload().code == 0
    assert clock.retries() == [pause]
    assert len(server.submissions) == 1


def test_retry_after_of_a_server_under_repair(server, upload, clock):
    server.fail("storage", 2, status=503, headers={"Retry-After": "20"})
    assert upload().code == 0
    assert clock.retries() == [20, 20]


@pytest.mark.parametrize("endpoint", ALL)
@pytest.mark.parametrize(
    ("status", "advice"), [(400, ""), (401, "--login"), (403, ""), (404, "--phase"), (409, ""), (413, "smaller zip")]
)
def test_a_refusal(server, upload, note, endpoint, status, advice):
    server.fail(endpoint, status=status, body={"detail": "the reason\n  of it"})
    done = upload()
    assert done.code == 1
    assert f"the server answered {status}: the reason of it" in done.line
    assert advice in done.line
    assert server.count(endpoint) == 1
    assert note.path().exists() == (endpoint == "submission")
    assert upload().code == 0
    assert len(server.submissions) == 1


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"phase": ["Not found."], "data": ["Wrong."]}, "phase: "),
        (["Too many."], "Too many."),
        ("plain words", "plain words"),
        ("", "Conflict"),
        ({"error": "why"}, "why"),
        ({"error_msg": "why"}, ": why"),
        ({"detail": None, "other": "x"}, "other: x"),
        (b"\xff\xfe", "409"),
    ],
    ids=str,
)
def test_reasons_in_other_shapes(server, upload, body, shown):
    server.fail("dataset", status=409, body=body)
    assert shown in upload().line


def test_a_page_in_place_of_a_reason_is_not_shown(server, upload):
    page = "<html><body>" + "a page " * 1000
    server.fail("dataset", status=403, body=page, headers={"Content-Type": "text/html; charset=utf-8"})
    assert upload().line == "error: POST datasets/: the server answered 403: Forbidden\n"


def test_an_invalid_token(server, upload, monkeypatch):
    """Codabench answers it with 403."""
    monkeypatch.setenv("CODABENCH_TOKEN", "another")
    done = upload()
    assert done.code == 1
    for words in ("403", "Invalid token.", "--login"):
        assert words in done.line
    assert server.endpoints() == ["permission"]


@pytest.mark.parametrize("detail", ["You do not have permission", "CSRF Failed"])
def test_another_403_is_not_taken_for_an_invalid_token(server, upload, detail):
    server.fail("permission", status=403, body={"detail": detail})
    assert "--login" not in upload().line


def test_no_server(server, upload, clock):
    done = upload(url=f"http://127.0.0.1:{closed_port()}")
    assert done.code == 3
    assert clock.retries() == PAUSES
    assert "the connection was refused or broken off" in done.line


# --- connections that break off or hang


@pytest.mark.parametrize("after", [0, 1, 150_000])
def test_an_upload_that_breaks_off(server, upload, clock, after):
    server.fail("storage", after=after)
    done = upload()
    assert done.code == 0
    assert re.search("the upload: .* broken off; trying again in 1 s", done.err)
    assert clock.retries() == [1]
    assert server.endpoints()[4:9] == ["dataset", "storage", "storage", "completed", "submit"]


def test_an_upload_that_always_breaks_off(server, upload):
    server.fail("storage", math.inf, after=150_000)
    done = upload()
    assert done.code == 3
    assert "the upload: " in done.line
    assert "signature" not in done.err
    assert server.count("storage") == 6
    assert "completed" not in server.endpoints()


def test_an_answer_that_breaks_off(server, upload, clock):
    server.fail("dataset", status=201, body='{"key": ', headers={"Content-Length": 1000, "Connection": "close"})
    server.fail("dataset")
    assert upload().code == 0
    assert clock.retries() == [1, 2]


@pytest.mark.parametrize("endpoint", ["permission", "storage", "submission"])
def test_a_server_that_hangs(server, upload, clock, monkeypatch, endpoint):
    for limit in ("TIMEOUT", "STALLED"):
        monkeypatch.setattr(f"competition.upload.codabench.{limit}", (0.2, 0.2))
    server.fail(endpoint, hang=5)
    done = upload()
    assert done.code == 0
    assert "the server does not answer; trying again in 1 s" in done.err
    assert clock.retries() == [1]


def test_a_server_that_always_hangs(server, upload, monkeypatch):
    monkeypatch.setattr("competition.upload.codabench.TIMEOUT", (0.1, 0.1))
    server.fail("permission", math.inf, hang=30)
    done = upload()
    assert done.code == 3
    assert done.line == f"error: GET can_make_submission/{server.phase}/: the server does not answer\n"
