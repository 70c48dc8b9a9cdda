"""upload_submission.py against a local Codabench that is strict and, on request, fails in every way a server can."""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from codabench import PHASE, TOKEN, Codabench, Fault
from helpers import ROOT, python, stub, stub_zip

import upload_submission

SCRIPT = ROOT / "upload_submission.py"
PAUSES = [1, 2, 4, 8, 16]  # between the six tries
ONCE_MORE = ("leave", "dataset", "storage", "completed", "submission")  # endpoints that may be called again
ALL = ("leave", "dataset", "storage", "completed", "submit", "submission")
WHOLE = ["leave", "dataset", "storage", "completed", "submit"]
LOG = "prediction_ingestion_stderr"
DROP = Fault()
PART = TOKEN[:12]  # not even that may be shown
ECHO = f"you sent Token {TOKEN}!"


class Clock:
    """In the place of the module time: sleeping only moves it."""

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
        """The pauses that are not those between two looks at a submission."""
        return [pause for pause in self.pauses if pause != upload_submission.POLL]


@dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self):
        """The error line, with the log tail where there is one."""
        assert self.err.count("error: ") == 1, self.err
        return self.err[self.err.index("error: ") :]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(upload_submission, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path):
    """A zip that passes every check, with a name that needs care; 300 kB that do not shrink."""
    path = stub_zip(tmp_path / "große Abgabe für alle.zip", stub())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights", os.urandom(300_000))
    return path


def only_here(host, *others, resolve=socket.getaddrinfo):
    """In the place of the name service, so that no test leaves this machine, whatever goes wrong."""
    if host not in ("127.0.0.1", "localhost"):
        raise AssertionError(f"{host} was called")
    return resolve(host, *others)


@pytest.fixture
def server(path, monkeypatch, tmp_path):
    """A Codabench that expects this zip; a violation of its rules fails the test."""
    monkeypatch.setenv("CODABENCH_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    with Codabench() as server:
        server.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        yield server
    assert server.violations == []


@pytest.fixture
def upload(server, path, clock, capsys):
    """The command line on that zip; checks what holds for every command."""

    def run(*arguments, url=None, phase=PHASE, file=path):
        code = upload_submission.main([str(file), "--server", server.url if url is None else url, "--phase", str(phase), *arguments])
        done = Done(code, *capsys.readouterr())
        assert PART not in done.out + done.err
        assert not note_path(path).is_file() or PART.encode() not in note_path(path).read_bytes()
        assert "Traceback" not in done.err
        assert done.err.count("error: ") == (code in (1, 2, 3)), done.err
        return done

    return run


def note_path(path, phase=PHASE):
    return path.with_name(f"{path.name}.phase{phase}.upload.json")


def note(path, phase=PHASE):
    return json.loads(note_path(path, phase).read_text())


def one_line(done):
    """The error, which has no further line."""
    assert done.error.count("\n") == 1, done.error
    return done.error


# --- the good way


def test_a_whole_run(server, path, upload, clock):
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
    assert server.endpoints() == [*WHOLE, *["submission"] * 8]
    assert clock.pauses == [5.0] * 7
    assert note(path)["submission"] == 4000
    assert note(path)["file"] == server.submissions[4000].name
    assert note(path)["sha256"] == server.sha256
    assert server.submissions[4000].phase == PHASE


def test_a_whole_run_as_a_process(server, path, tmp_path):
    server.statuses = ["Finished"]
    done = python(SCRIPT, path, "--server", server.url, "--phase", PHASE, cwd=tmp_path, isolated=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "submission 4000\n    0 s  Finished\naccuracy  0.9125\n"
    assert done.stderr == ""
    assert server.endpoints() == [*WHOLE, "submission"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, note_path(path).name])


@pytest.mark.parametrize("ending", ["", "/", "/api", "/api/"])
def test_addresses_that_mean_the_same(server, upload, ending):
    assert upload(url=server.url + ending).code == 0
    assert upload().code == 0
    assert server.count("submit") == 1


def test_localhost_may_be_plain_http(server, upload):
    assert upload(url=server.url.replace("127.0.0.1", "localhost")).code == 0


@pytest.mark.parametrize("scores", ["accuracy", "x"])
def test_scores_of_any_name(server, upload, scores):
    server.scores = [{"column_key": scores, "score": "1"}]
    assert upload().out.splitlines()[-1] == f"{scores}  1"


def test_azure_is_told_the_kind_of_blob(path, monkeypatch):
    sent = {}
    server = upload_submission.Server("https://example.org", TOKEN)
    answer = SimpleNamespace(ok=True, status_code=200, is_redirect=False)
    monkeypatch.setattr(server.session, "put", lambda url, **options: sent.update(url=url, **options) or answer)
    server.put("https://a.blob.core.windows.net/x?sig=1", path)
    assert sent["headers"] == {"Content-Type": "application/zip", "x-ms-blob-type": "BlockBlob"}
    server.put("https://blob.core.windows.net.example.org/x?sig=1", path)
    assert sent["headers"] == {"Content-Type": "application/zip"}


# --- failures that pass, and that do not


@pytest.mark.parametrize("endpoint", ONCE_MORE)
@pytest.mark.parametrize("fault", [Fault(500), Fault(502, "<html>"), Fault(503), Fault(429), DROP], ids=str)
def test_a_failure_that_passes(server, upload, clock, endpoint, fault):
    server.fail(endpoint, fault)
    done = upload()
    assert done.code == 0
    assert clock.retries() == [1]
    assert re.fullmatch(r".+: .+; again in 1 s\n", done.err)
    assert server.count("submit") == len(server.submissions) == 1


def test_the_pauses_grow(server, upload, clock):
    server.fail("dataset", Fault(503), times=5)
    assert upload().code == 0
    assert clock.retries() == PAUSES


@pytest.mark.parametrize("endpoint", ONCE_MORE)
@pytest.mark.parametrize("fault", [Fault(503, {"detail": "under repair"}), DROP], ids=["503", "drop"])
def test_a_failure_that_stays(server, path, upload, clock, endpoint, fault):
    server.fail(endpoint, fault, times=math.inf)
    done = upload()
    assert done.code == 3
    assert clock.retries() == PAUSES
    assert server.count(endpoint) == 6
    assert ("under repair" if fault.status else "broke off") in one_line(done)
    assert len(server.submissions) == (endpoint == "submission")
    server.mend()
    assert upload().code == 0  # the same command, given again
    assert len(server.submissions) == server.count("submit") == 1


@pytest.mark.parametrize(("asked", "pause"), [("7", 7), ("0", 0), ("9999999", 300), ("soon", 1), ("-3", 1), ("1.5", 1), ("²", 1)])
@pytest.mark.parametrize("endpoint", ["leave", "submit"])
def test_retry_after(server, upload, clock, endpoint, asked, pause):
    server.fail(endpoint, Fault(429, headers={"Retry-After": asked}))
    assert upload().code == 0
    assert clock.retries() == [pause]
    assert len(server.submissions) == 1


def test_retry_after_of_a_server_under_repair(server, upload, clock):
    server.fail("storage", Fault(503, headers={"Retry-After": "20"}), times=2)
    assert upload().code == 0
    assert clock.retries() == [20, 20]


@pytest.mark.parametrize("endpoint", ALL)
@pytest.mark.parametrize(("status", "advice"), [(400, ""), (401, "--login"), (403, ""), (404, "--phase"), (409, ""), (413, "smaller zip")])
def test_a_refusal(server, path, upload, clock, endpoint, status, advice):
    server.fail(endpoint, Fault(status, {"detail": "the reason\n  of it"}))
    done = upload()
    assert done.code == 1
    assert f"the server answered {status}: the reason of it" in one_line(done)
    assert advice in done.error
    assert clock.retries() == []
    assert server.count(endpoint) == 1
    if endpoint != "submission":
        assert not note_path(path).exists()
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
        (b"\xff\xfe", "409"),
    ],
)
def test_reasons_in_other_shapes(server, upload, body, shown):
    server.fail("dataset", Fault(409, body))
    assert shown in one_line(upload())


def test_a_page_in_the_place_of_a_reason_is_not_shown(server, upload):
    page = "<html><body>" + "a page " * 1000
    server.fail("dataset", Fault(403, page, {"Content-Type": "text/html; charset=utf-8"}))
    assert one_line(upload()) == "error: POST datasets/: the server answered 403: Forbidden\n"


def test_a_token_that_is_wrong(server, upload, monkeypatch):
    monkeypatch.setenv("CODABENCH_TOKEN", "another")
    done = upload()
    assert done.code == 1
    assert "401: Invalid token.; the token is not valid: make a new one with --login" in one_line(done)
    assert server.endpoints() == ["leave"]


def test_no_leave(server, path, upload):
    server.can = {"can": False, "reason": "Reached maximum submissions per day"}
    done = upload()
    assert done.code == 1
    assert one_line(done) == "error: the server takes no submission now: Reached maximum submissions per day\n"
    assert server.endpoints() == ["leave"]
    assert not note_path(path).exists()


def test_no_server(server, upload, clock):
    free = upload_free_port()
    done = upload(url=f"http://127.0.0.1:{free}")
    assert done.code == 3
    assert clock.retries() == PAUSES
    assert "the connection was refused or broke off" in one_line(done)


def upload_free_port():
    with Codabench() as server:
        return int(server.url.rpartition(":")[2])


# --- connections that break off or hang


@pytest.mark.parametrize("after", [0, 1, 150_000])
def test_an_upload_that_breaks_off(server, upload, clock, after):
    server.fail("storage", Fault(after=after))
    done = upload()
    assert done.code == 0
    assert "the upload: the connection was refused or broke off; again in 1 s" in done.err
    assert clock.retries() == [1]
    assert server.endpoints()[:6] == ["leave", "dataset", "storage", "storage", "completed", "submit"]


def test_an_upload_that_always_breaks_off(server, upload, clock):
    server.fail("storage", Fault(after=150_000), times=math.inf)
    done = upload()
    assert done.code == 3
    assert "the upload: " in one_line(done)
    assert "signature" not in done.err
    assert server.count("storage") == 6
    assert "completed" not in server.endpoints()


def test_an_answer_that_breaks_off(server, upload, clock):
    server.fail("dataset", Fault(201, '{"key": ', {"Content-Length": 1000, "Connection": "close"}))
    server.fail("dataset", DROP)
    assert upload().code == 0
    assert clock.retries() == [1, 2]


@pytest.mark.parametrize("endpoint", ["leave", "storage", "submission"])
def test_a_server_that_hangs(server, upload, clock, monkeypatch, endpoint):
    monkeypatch.setattr(upload_submission, "TIMEOUT", (0.2, 0.2))
    server.fail(endpoint, Fault(hang=30))
    done = upload()
    assert done.code == 0
    assert "the server does not answer; again in 1 s" in done.err
    assert clock.retries() == [1]


def test_a_server_that_hangs_for_ever(server, upload, clock, monkeypatch):
    monkeypatch.setattr(upload_submission, "TIMEOUT", (0.1, 0.1))
    server.fail("leave", Fault(hang=30), times=math.inf)
    done = upload()
    assert done.code == 3
    assert one_line(done) == f"error: GET can_make_submission/{PHASE}/: the server does not answer\n"


# --- a submission is asked for once

LOST = [DROP, Fault(500), Fault(502), Fault(503), Fault(504, "<html>"), Fault(hang=30)]


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("fault", LOST, ids=str)
def test_a_lost_answer_is_found_in_the_list(server, path, upload, clock, monkeypatch, fault, paged):
    monkeypatch.setattr(upload_submission, "TIMEOUT", (0.3, 0.3))
    server.paged = paged
    server.fail("submit", Fault(**{**vars(fault), "effect": True}))
    done = upload()
    assert done.code == 0
    assert done.out.startswith("submission 4000\n")
    assert server.endpoints()[4:6] == ["submit", "list"]
    assert server.count("submit") == len(server.submissions) == 1
    assert note(path)["submission"] == 4000


@pytest.mark.parametrize("fault", LOST, ids=str)
def test_an_answer_lost_for_good(server, path, upload, clock, monkeypatch, fault):
    monkeypatch.setattr(upload_submission, "TIMEOUT", (0.3, 0.3))
    server.fail("submit", fault)
    done = upload()
    assert done.code == 3
    assert "is not in the server's list" in one_line(done)
    assert clock.retries() == [1, 2, 4]
    assert note(path)["submission"] is None

    done = upload()
    assert done.code == 1
    assert "--again" in one_line(done)
    assert note(path)["file"] in done.error
    assert server.count("submit") == 1

    done = upload("--again")
    assert done.code == 0
    assert server.count("submit") == 2
    assert len(server.submissions) == 1


def test_an_answer_lost_and_listed_late(server, path, upload, clock):
    server.fail("submit", Fault(effect=True))
    server.fail("list", Fault(200, []), times=2)
    assert upload().code == 0
    assert server.count("list") == 3
    assert clock.retries() == [1, 2, 4]
    assert server.count("submit") == 1


def test_an_answer_lost_and_listed_for_the_next_command(server, path, upload):
    server.fail("submit", Fault(effect=True))
    server.unlisted = True
    assert upload().code == 3
    server.unlisted = False
    done = upload()
    assert (done.code, done.out.splitlines()[0]) == (0, "submission 4000")
    assert note(path)["submission"] == 4000
    assert server.count("submit") == 1


@pytest.mark.parametrize(
    "fault",
    [DROP, Fault(503), Fault(401, {"detail": "no"}), Fault(403, {"detail": "no"}), Fault(404), Fault(200, "<html>")],
    ids=str,
)
def test_an_answer_lost_and_no_list(server, path, upload, fault):
    """As long as nobody knows whether the submission is there, the note must stay."""
    server.fail("submit", Fault(effect=True))
    server.fail("list", fault, times=math.inf)
    assert upload().code in (1, 3)
    assert note(path)["submission"] is None
    server.mend()
    assert upload().code == 0
    assert server.count("submit") == len(server.submissions) == 1


def test_others_in_the_list_are_not_taken_for_it(server, path, upload):
    assert upload().code == 0
    assert upload("--again").code == 0
    server.fail("submit", DROP)
    assert upload("--again").code == 3
    assert len(server.submissions) == 2
    assert len({submission.name for submission in server.submissions.values()}) == 2


@pytest.mark.parametrize("fault", [Fault(503), Fault(429)], ids=["503", "429"])
def test_a_submission_that_is_always_put_off(server, path, upload, clock, fault):
    server.fail("submit", fault, times=math.inf)
    done = upload()
    assert done.code == 3
    assert server.count("submit") == (6 if fault.status == 429 else 1)
    assert server.submissions == {}


# --- how a submission ends


def test_scores_that_come_late(server, upload):
    server.late = 40
    assert upload().code == 0
    assert server.count("submission") == 5 + 40


@pytest.mark.parametrize(("wait", "looks"), [("0", 2), ("12", 4)])
def test_no_scores_in_time(server, path, upload, wait, looks):
    server.statuses, server.late = ["Finished"], 10_000
    done = upload("--wait", wait)
    assert done.code == 3
    assert one_line(done) == f"error: submission 4000 has no scores after {wait} s, it is Finished; give the same command again to go on\n"
    assert server.count("submission") == looks
    upload("--wait", "0")
    assert server.count("submit") == 1


def test_an_unknown_status_is_waited_out(server, upload):
    server.statuses = ["Unknown", "Submitted", "Running", "Running", "Finished"]
    done = upload()
    assert done.code == 0
    assert re.findall(r"s  (\w+)", done.out) == ["Unknown", "Submitted", "Running", "Finished"]


@pytest.fixture
def failing(server):
    """The server's submissions fail, with a reason and logs."""
    server.statuses = ["Running", "Failed"]
    server.details = "Ingestion program failed"
    server.logs = {
        "scoring_stdout": "scored nothing\n",
        LOG: "".join(f"line {number}\n" for number in range(100)),
        "scoring_stderr": "",
        "other": "never shown\n",
    }
    return server


def test_a_submission_that_fails(failing, upload):
    done = upload()
    assert done.code == 1
    assert done.error.splitlines() == [
        "error: submission 4000 failed: Ingestion program failed",
        f"the end of {LOG}:",
        *(f"  line {number}" for number in range(85, 100)),
        "the end of scoring_stdout:",
        "  scored nothing",
    ]
    assert failing.count("submit") == 1


def test_a_failed_submission_is_not_sent_again(failing, upload):
    upload()
    assert upload().code == 1
    assert failing.count("submit") == 1


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_an_end_without_reason(server, upload, status):
    server.statuses = [status]
    done = upload()
    assert done.code == 1
    assert one_line(done) == f"error: submission 4000 {status.lower()}: the server gives no reason\n"


def test_hidden_details(failing, upload):
    failing.fail("details", Fault(403, {"detail": "Output is hidden"}))
    done = upload()
    assert done.code == 1
    assert done.error.splitlines() == [
        "error: submission 4000 failed: Ingestion program failed",
        "(no logs: GET submissions/4000/get_details/: the server answered 403: Output is hidden)",
    ]


@pytest.mark.parametrize("fault", [Fault(403, "<Error>"), Fault(404), DROP], ids=["403", "404", "drop"])
def test_a_log_that_cannot_be_had(failing, upload, fault):
    failing.fail("log", fault)
    done = upload()
    assert done.code == 1
    assert done.error.splitlines()[0] == "error: submission 4000 failed: Ingestion program failed"
    assert "scored nothing" in done.error


def test_a_log_in_utf8(failing, upload):
    failing.logs = {LOG: "nicht gefunden: Blätter → 8\n"}
    assert "nicht gefunden: Blätter → 8" in upload().error


@pytest.mark.parametrize("body", [b"\xff\xfe\x00bad", b"", b"\n\n"])
def test_a_log_of_garbage(failing, upload, body):
    failing.fail("log", Fault(200, body), times=2)
    done = upload()
    assert done.code == 1
    assert "Ingestion program failed" in done.error


@pytest.mark.parametrize(
    "details",
    [
        [],
        {},
        {"logs": None},
        {"logs": {}},
        {"logs": 5},
        {"logs": ["x"]},
        {"logs": [{"name": LOG}]},
        {"logs": [{"name": LOG, "data_file": None}]},
    ],
    ids=str,
)
def test_details_of_another_shape_do_not_hide_the_reason(failing, upload, details):
    failing.fail("details", Fault(200, details))
    done = upload()
    assert done.code == 1
    assert done.error.startswith("error: submission 4000 failed: Ingestion program failed\n")


# --- answers that are none

SHAPES = ["<html>a page</html>", "", "null", "5", "[]", "{}", '{"detail": "x"}', b"\xff\xfe", "{" * 5000]


@pytest.mark.parametrize("endpoint", ["leave", "dataset", "completed", "submission"])
@pytest.mark.parametrize("body", SHAPES, ids=lambda body: str(body)[:20])
def test_an_answer_of_another_shape(server, path, upload, endpoint, body):
    server.fail(endpoint, Fault(200, body))
    done = upload("--wait", "0")
    assert done.code == 1
    assert len(one_line(done)) < 400
    server.mend()
    assert upload().code == 0
    assert server.count("submit") == len(server.submissions) == 1


@pytest.mark.parametrize("body", [*SHAPES, '{"id": "abc"}', '{"id": null}', '{"id": [1]}'], ids=lambda body: str(body)[:20])
def test_a_submission_whose_answer_has_another_shape(server, path, upload, body):
    """It was made: the server said so. It must not be forgotten, or the same command would send it twice."""
    server.fail("submit", Fault(201, body, effect=True))
    done = upload()
    assert done.code in (0, 1, 3)
    server.mend()
    assert upload().code == 0
    assert server.count("submit") == len(server.submissions) == 1


@pytest.mark.parametrize(
    "place", [{"key": "k", "sassy_url": 5}, {"key": "k", "sassy_url": "http://["}, {"key": "k", "sassy_url": {}}], ids=str
)
def test_a_place_that_is_no_address(server, upload, place):
    server.fail("dataset", Fault(201, place))
    assert upload().code in (1, 3)
    assert server.count("submit") == 0


@pytest.mark.parametrize(
    "scores",
    [
        [{"column_key": "accuracy", "score": "abc"}],
        [{"column_key": "accuracy", "score": [1]}],
        [{"column_key": "accuracy"}],
        [{"score": "1"}],
        [{"column_key": 5, "score": "1"}],
        ["accuracy"],
        {"accuracy": "1"},
        "0.5",
        5,
    ],
    ids=str,
)
def test_scores_of_another_shape(server, upload, scores):
    server.scores = scores
    done = upload("--wait", "60")
    assert done.code == 1 or scores == [{"column_key": 5, "score": "1"}]
    assert server.count("submit") == 1


@pytest.mark.parametrize("rows", [[5], [{}], [{"id": "abc"}], {"results": None}, {"results": 5}, {"results": [None]}], ids=str)
def test_a_list_of_another_shape(server, path, upload, rows):
    server.fail("submit", Fault(effect=True))
    server.fail("list", Fault(200, rows), times=math.inf)
    assert upload().code in (1, 3)
    server.mend()
    assert upload().code == 0
    assert server.count("submit") == len(server.submissions) == 1


@pytest.mark.parametrize("endpoint", ["leave", "dataset", "completed", "submit", "submission"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect(server, upload, endpoint, status):
    server.fail(endpoint, Fault(status, headers={"Location": f"{server.url.replace('127.0.0.1', 'localhost')}/api/submissions/"}))
    done = upload()
    assert done.code == 1
    assert "localhost" in one_line(done)
    assert "--server" in done.error
    assert server.count(endpoint) == 1


@pytest.mark.parametrize("location", ["/accounts/login/", "", "//"])
def test_a_redirect_to_nowhere(server, upload, location):
    server.fail("leave", Fault(302, headers={"Location": location}))
    done = upload()
    assert done.code == 1
    assert "called ;" not in one_line(done)


def test_a_redirected_upload(server, upload):
    server.fail("storage", Fault(307, headers={"Location": f"{server.url}/storage/x?signature=s"}))
    done = upload()
    assert done.code == 1
    assert "signature" not in one_line(done)
    assert server.count("storage") == 1
    assert server.count("completed") == 0


@pytest.mark.parametrize("status", [300, 302, 304])
def test_an_upload_that_is_neither_done_nor_redirected(server, upload, status):
    server.fail("storage", Fault(status))
    assert upload().code == 1
    assert server.count("completed") == 0


# --- the token


@pytest.mark.parametrize("endpoint", ALL)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(403, {"detail": ECHO}),
        Fault(409, {TOKEN: [ECHO]}),
        Fault(400, ECHO),
        Fault(404, [ECHO]),
        Fault(403, "", {}, ECHO),
        Fault(503, {"error": ECHO}),
        Fault(302, "", {"Location": f"http://{TOKEN}@127.0.0.1:1/{TOKEN}"}),
        Fault(200, ECHO, effect=True),
    ],
    ids=["detail", "key", "text", "list", "words", "again", "redirect", "no JSON"],
)
def test_the_token_comes_back_in_an_error(server, upload, endpoint, fault):
    server.fail(endpoint, fault, times=7)
    upload("--wait", "0")  # which looks for the token in all it prints


@pytest.mark.parametrize("body", [{"detail": "x" * 480 + TOKEN}, "x" * 180 + TOKEN], ids=["JSON", "text"])
def test_the_token_comes_back_where_the_error_is_cut(server, upload, body):
    server.fail("leave", Fault(409, body))
    assert len(one_line(upload())) < 600


def test_the_token_comes_back_in_the_leave(server, upload):
    server.can = {"can": False, "reason": ECHO}
    assert "you sent Token ***!" in one_line(upload())


@pytest.mark.parametrize("where", ["status_details", "log", "log name", "status", "score", "details", "number"])
def test_the_token_comes_back_from_a_submission(failing, upload, where):
    if where == "status_details":
        failing.details = ECHO
    elif where == "log":
        failing.logs = {LOG: ECHO}
    elif where == "log name":
        failing.logs = {TOKEN: "x"}
    elif where == "status":
        failing.statuses = [TOKEN, "Failed"]
    elif where == "score":
        failing.statuses, failing.scores = ["Finished"], [{"column_key": TOKEN, "score": "1"}]
    elif where == "details":
        failing.fail("details", Fault(403, {"detail": ECHO}))
    else:
        failing.fail("submit", Fault(201, {"id": TOKEN}, effect=True))
    upload()  # which looks for the token in all it prints


def test_no_option_takes_the_token(server, path, clock, capsys):
    for option in ("--token", "--tok", "--password"):
        with pytest.raises(SystemExit) as caught:
            upload_submission.main([str(path), "--server", server.url, "--phase", "7", option, "surely-not"])
        assert caught.value.code == 2
    assert server.calls == []


@pytest.fixture
def token_file(tmp_path, monkeypatch):
    monkeypatch.delenv("CODABENCH_TOKEN", raising=False)
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def test_the_token_from_a_file(server, upload, token_file):
    assert upload("--token-file", str(token_file)).code == 0


def test_the_token_from_the_usual_file(server, upload, token_file, tmp_path):
    usual = tmp_path / "home" / ".config" / "codabench" / "token"
    usual.parent.mkdir(parents=True)
    token_file.rename(usual)
    assert upload().code == 0


def test_the_environment_wins(server, upload, token_file, monkeypatch):
    token_file.write_text("another")
    token_file.chmod(0o644)
    monkeypatch.setenv("CODABENCH_TOKEN", f" {TOKEN}\n")
    assert upload("--token-file", str(token_file)).code == 0


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_a_file_that_others_can_read(server, upload, token_file, mode):
    token_file.chmod(mode)
    done = upload("--token-file", str(token_file))
    assert done.code == 2
    assert f"chmod 600 {token_file}" in one_line(done)
    assert server.calls == []
    token_file.chmod(0o600)
    assert upload("--token-file", str(token_file)).code == 0


@pytest.mark.parametrize("environment", [None, "", " \n"])
def test_no_token(server, upload, token_file, tmp_path, monkeypatch, environment):
    if environment is not None:
        monkeypatch.setenv("CODABENCH_TOKEN", environment)
    done = upload("--token-file", str(tmp_path / "none"))
    assert done.code == 2
    assert "CODABENCH_TOKEN" in one_line(done)
    assert "--login" in done.error
    assert server.calls == []


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"\xff\xfe\x00", "tökén".encode(), b"a\x1bb", b"a\x00b"])
def test_a_file_without_token(server, upload, token_file, content):
    token_file.write_bytes(content)
    done = upload("--token-file", str(token_file))
    assert done.code == 2
    assert "--login" in one_line(done)
    assert str(token_file) in done.error
    assert server.calls == []


def test_a_folder_as_token_file(server, upload, token_file):
    assert upload("--token-file", str(token_file.parent)).code == 2


@pytest.mark.parametrize("value", ["two words", "tökén", "a\nb", "a\x07b"])
def test_an_environment_without_token(server, upload, monkeypatch, value):
    monkeypatch.setenv("CODABENCH_TOKEN", value)
    done = upload()
    assert done.code == 2
    assert value not in one_line(done)
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
        "",
    ],
)
def test_an_address_that_the_token_must_not_go_to(upload, url):
    done = upload(url=url)
    assert done.code == 2
    assert "--server" in one_line(done)


@pytest.mark.parametrize("url", ["http://example.org", "codabench.org"])
def test_the_refusal_says_what_to_do(upload, url):
    assert "https" in one_line(upload(url=url))


@pytest.fixture
def netrc(tmp_path, monkeypatch):
    """A login for the very host, which the library takes by itself where nobody forbids it."""
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
    failing.fail("log", Fault(302, headers={"Location": f"{failing.url}/logs/4000/scoring_stdout?signature=s"}))
    assert upload().code == 1


# --- login


@pytest.fixture
def login(server, tmp_path, monkeypatch, capsys):
    """--login with this name and password typed in; checks that no secret is shown."""
    monkeypatch.delenv("CODABENCH_TOKEN")
    file = tmp_path / "new" / "folder" / "token"

    def run(name="me", password="pä&ss=w?", url=server.url):
        monkeypatch.setattr("builtins.input", lambda prompt="": name)
        monkeypatch.setattr(upload_submission.getpass, "getpass", lambda prompt="": password)
        code = upload_submission.main(["--login", "--server", url, "--token-file", str(file)])
        done = Done(code, *capsys.readouterr())
        assert TOKEN not in done.out + done.err
        assert password not in done.out + done.err
        assert not any(password in str(call.path) for call in server.calls)
        return done

    run.file = file
    return run


def test_login(server, login, upload):
    before = os.umask(0)
    try:
        done = login()
    finally:
        os.umask(before)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"the token is in {login.file}\n"
    assert login.file.read_text().strip() == TOKEN
    assert stat.S_IMODE(login.file.stat().st_mode) == 0o600
    assert [file.name for file in login.file.parent.iterdir()] == ["token"]
    assert server.endpoints() == ["login"]
    assert upload("--token-file", str(login.file)).code == 0


def test_login_closes_an_open_file(login):
    login.file.parent.mkdir(parents=True)
    login.file.write_text("old")
    login.file.chmod(0o644)
    assert login().code == 0
    assert stat.S_IMODE(login.file.stat().st_mode) == 0o600
    assert login.file.read_text().strip() == TOKEN


def test_login_with_a_wrong_password(server, login):
    done = login(password="wrong-password")
    assert done.code == 1
    assert "Unable to log in with provided credentials." in one_line(done)
    assert not login.file.parent.exists() or not list(login.file.parent.iterdir())
    assert server.count("login") == 1


@pytest.mark.parametrize("body", [{"detail": "wrong: some-password"}, "wrong: some-password", {"password": ["some-password"]}], ids=str)
def test_the_password_comes_back_in_an_error(server, login, body):
    server.fail("login", Fault(400, body))
    assert login(password="some-password").code == 1


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"token": null}', '{"token": 5}', '{"token": ""}', '{"token": "two words"}'])
def test_login_that_gives_no_token(server, login, body):
    server.fail("login", Fault(200, body))
    done = login()
    assert done.code == 1
    assert one_line(done)
    assert not login.file.exists()


def test_login_keeps_the_old_file_where_it_fails(server, login):
    login.file.parent.mkdir(parents=True)
    login.file.write_text("old")
    server.fail("login", Fault(403))
    assert login().code == 1
    assert login.file.read_text() == "old"


def test_login_is_tried_again(server, login, clock):
    server.fail("login", Fault(503))
    assert login().code == 0
    assert clock.pauses == [1]


def test_login_over_plain_http(server, login):
    assert login(url="http://example.org").code == 2
    assert server.calls == []


def test_login_is_interrupted(server, login, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(upload_submission.requests, "post", interrupt)
    assert login().code == 130
    assert not login.file.exists()


def test_login_without_anybody_to_ask(server, tmp_path):
    done = python(SCRIPT, "--login", "--server", server.url, "--token-file", tmp_path / "token", isolated=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert server.calls == []


# --- what is not sent at all


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "truncated", "flipped", "no model", "no metadata", "folder"])
def test_a_wrong_zip(server, path, upload, damage):
    data = path.read_bytes()
    if damage in ("missing", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "no model":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata", "")
    elif damage == "no metadata":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.py", stub())
    elif damage != "missing":
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"empty": b"", "garbage": b"\xff" * 5000, "truncated": data[:middle], "flipped": flipped}[damage])
    done = upload()
    assert done.code in (1, 2)
    assert "not sent, " in one_line(done)
    assert server.calls == []
    assert not note_path(path).exists()


def test_a_zip_above_the_limit(server, path, upload):
    done = upload("--limit-mb", "0.2")
    assert done.code == 1
    assert "not sent, size: 0.3 MB, the limit is 0.2 MB" in one_line(done)
    assert server.calls == []
    assert upload("--limit-mb", "0.4").code == 0


def test_a_dry_run(server, path, upload):
    done = upload("--dry-run")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"allowed: {path} (0.3 MB) could be handed in to phase {PHASE}\n"
    assert server.endpoints() == ["leave"]
    assert not note_path(path).exists()


def test_a_dry_run_without_leave(server, upload):
    server.can = {"can": False, "reason": "the phase is over"}
    done = upload("--dry-run")
    assert done.code == 1
    assert "the phase is over" in one_line(done)
    assert server.endpoints() == ["leave"]


def test_a_dry_run_of_what_has_been_sent(server, path, upload):
    upload()
    before = note(path)
    done = upload("--dry-run")
    assert done.code == 0
    assert server.endpoints()[-1] == "leave"
    assert note(path) == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["x.zip"], ["x.zip", "--phase", "7"], ["x.zip", "--server", "https://x.org"], ["--server", "https://x.org", "--phase", "7"]],
    ids=str,
)
def test_arguments_that_are_missing(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        upload_submission.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("surplus", [["--nonsense"], ["--phase", "first"], ["--wait", "long"], ["--limit-mb", "many"], ["second.zip"]])
def test_wrong_arguments(surplus, capsys):
    with pytest.raises(SystemExit) as caught:
        upload_submission.main(["x.zip", "--server", "https://x.org", "--phase", "7", *surplus])
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help():
    done = python(SCRIPT, "--help", isolated=False)
    assert done.returncode == 0
    assert re.search(r"examples:\n( +(CODABENCH_TOKEN=\S+ )?python upload_submission\.py.*\n){3}", done.stdout)
    for word in ("exit codes: 0", "CODABENCH_TOKEN", "--login", "--dry-run", "--again", "--wait", "--limit-mb", "--token-file"):
        assert word in done.stdout


# --- the note


def test_the_same_command_again_only_watches(server, path, upload):
    upload()
    before = note(path)
    done = upload()
    assert (done.code, done.out) == (0, "submission 4000\n    0 s  Finished\naccuracy  0.9125\n")
    assert server.endpoints()[len(WHOLE) + 5 :] == ["submission"]
    assert note(path) == before


@pytest.mark.parametrize("change", ["zip", "phase", "server"])
def test_something_else_is_a_new_submission(server, path, upload, change):
    upload()
    if change == "zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("more", "x")
        server.sha256 = None
    url = server.url.replace("127.0.0.1", "localhost") if change == "server" else None
    done = upload(phase=8 if change == "phase" else PHASE, url=url)
    assert (done.code, done.out.splitlines()[0]) == (0, "submission 4001")
    assert len(server.submissions) == 2
    assert note(path, 8 if change == "phase" else PHASE)["submission"] == 4001


def test_each_phase_has_a_note(server, path, upload):
    upload()
    upload(phase=8)
    assert upload().out.startswith("submission 4000\n")
    assert upload(phase=8).out.startswith("submission 4001\n")
    assert len(server.submissions) == 2


def test_again(server, path, upload):
    upload()
    assert upload("--again").out.startswith("submission 4001\n")
    assert upload().out.startswith("submission 4001\n")
    assert server.count("submit") == 2


def test_again_that_is_refused_does_not_forget_the_first(server, path, upload):
    upload()
    before = note(path)
    server.fail("submit", Fault(403, {"detail": "no more today"}))
    assert upload("--again").code == 1
    assert note_path(path).exists()
    assert note(path) == before
    assert upload().out.startswith("submission 4000\n")
    assert len(server.submissions) == 1


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"5", b"{}", b"\xff\xfe", b'{"server": "x"}', b'{"surplus": 1}'],
)
def test_a_damaged_note(server, path, upload, text):
    note_path(path).write_bytes(text)
    done = upload()
    assert done.code == 2
    assert str(note_path(path)) in one_line(done)
    assert server.calls == []
    assert note_path(path).read_bytes() == text


def test_a_note_that_is_a_folder(server, path, upload):
    note_path(path).mkdir()
    assert upload().code == 2
    assert server.calls == []


@pytest.mark.parametrize("number", ["abc", [1]])
def test_a_note_with_a_number_that_is_none(server, path, upload, number):
    upload()
    before = server.count("submission")
    note_path(path).write_text(json.dumps({**note(path), "submission": number}))
    assert upload().code == 2
    assert server.count("submission") == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(server, path, upload):
    path.parent.chmod(0o500)
    try:
        done = upload()
    finally:
        path.parent.chmod(0o700)
    assert done.code == 2
    assert server.count("submit") == 0


def test_a_disk_that_is_full_before_the_submission(server, path, upload, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(upload_submission, "write_json", full)
    done = upload()
    assert done.code == 2
    assert "No space left on device" in one_line(done)
    assert server.count("submit") == 0


def test_a_disk_that_is_full_after_the_submission(server, path, upload, monkeypatch):
    def full_at_last(target, value):
        if value["submission"]:
            raise OSError(28, "No space left on device", str(target))
        write_json(target, value)

    write_json = upload_submission.write_json
    with monkeypatch.context() as context:
        context.setattr(upload_submission, "write_json", full_at_last)
        assert upload().code == 2
    assert upload().code == 0
    assert server.count("submit") == 1


# --- interrupted


def test_an_interrupt_while_waiting(server, upload, clock):
    clock.interrupt = 2
    done = upload()
    assert done.code == 130
    assert done.err == "\ninterrupted; submission 4000 goes on at the server, give the command again to watch it\n"
    clock.interrupt = math.inf
    assert upload().code == 0
    assert server.count("submit") == 1


def test_an_interrupt_before_the_submission(server, path, upload, clock):
    clock.interrupt = 0
    server.fail("completed", Fault(503))
    done = upload()
    assert done.code == 130
    assert done.err.endswith("\ninterrupted\n")
    assert not note_path(path).exists()


def test_an_interrupt_while_nobody_knows(server, path, upload, clock):
    clock.interrupt = 0
    server.fail("submit", Fault(effect=True))
    assert upload().code == 130
    assert note(path)["submission"] is None
    clock.interrupt = math.inf
    assert upload().code == 0
    assert server.count("submit") == 1


def test_an_interrupt_of_a_process(server, path):
    server.statuses = ["Running"] * 1000
    command = [sys.executable, SCRIPT, path, "--server", server.url, "--phase", str(PHASE)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell's background jobs, and what these start, would ignore the signal.
    with subprocess.Popen(command, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        assert process.stdout.readline() == "submission 4000\n"
        assert "Running" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error == "\ninterrupted; submission 4000 goes on at the server, give the command again to watch it\n"


# --- large zips


def large_zip(path, megabytes):
    """A zip with stored zeros, whose size on the wire is the size it says."""
    stub_zip(path, stub())
    with zipfile.ZipFile(path, "a") as archive, archive.open("weights", "w") as target:
        for _ in range(megabytes):
            target.write(bytes(1 << 20))
    return path


def test_memory_does_not_grow_with_the_zip(server, path, upload):
    """And nothing is shown of an upload of more than a second, for this is no terminal."""
    large_zip(path, 100)
    server.sha256, server.statuses, server.speed = None, ["Finished"], 80e6
    tracemalloc.start()
    try:
        done = upload()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        path.unlink()
    assert (done.code, done.err) == (0, "")
    assert peak < 40e6


def test_progress(server, path):
    """On a terminal: percentage, speed and time left; and nothing of it is left at the end."""
    pty = pytest.importorskip("pty", reason="terminals are a Unix matter")
    import termios

    large_zip(path, 16)
    server.sha256, server.statuses, server.speed = None, ["Finished"], 5e6
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, SCRIPT, path, "--server", server.url, "--phase", str(PHASE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
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
