"""A submission is created once: what happens when the answer to that call is lost, unclear or a refusal."""

import math

import pytest

pytestmark = pytest.mark.unit

DROP = {}
LOST = [
    *(DROP, {"hang": 30}, {"status": 504, "body": "<html>"}),
    *({"status": status} for status in (408, 425, 500, 502, 503, 520, 522, 524)),
]


@pytest.fixture
def patience(monkeypatch, fault):
    """A server that hangs is given up after two seconds; one that answers has the usual time for it."""
    if "hang" in fault:
        monkeypatch.setattr("competition.upload.codabench.TIMEOUT", (2, 2))


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("fault", LOST, ids=str)
def test_a_lost_answer_is_found_in_the_list(server, upload, note, fault, paged):
    server.paged = paged
    server.fail("submit", **fault, effect=True)
    done = upload()
    assert done.code == 0
    assert done.out.startswith("submission 4000\n")
    before_polls = server.endpoints()[: server.endpoints().index("submission")]
    assert before_polls[-2:] == ["submit", "list"]
    assert server.count("submit") == len(server.submissions) == 1
    assert note.read()["submission"] == 4000


def test_a_lost_answer_is_found_on_a_later_page_of_the_list(server, upload):
    server.paged = True
    server.fail("submit", effect=True)
    server.unlisted = True
    assert upload().code == 3
    sent = server.submissions[4000]
    for number in range(4001, 4006):  # the user's later submissions, which the list shows first
        server.submissions[number] = type(sent)(sent.phase, "other.zip", sent.polls, sent.task)
    server.unlisted = False
    assert upload().out.startswith("submission 4000\n")


def test_a_lost_answer_of_several_tasks_finds_the_parent(server, upload, make_task):
    """The children come first in the list, with the same file name."""
    server.tasks = [make_task("first"), make_task("second")]
    server.fail("submit", effect=True)
    done = upload()
    assert done.code == 0
    assert done.out.startswith("submission 4000\n")
    assert len(server.parents()) == 1


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("fault", LOST, ids=str)
def test_an_answer_lost_for_good(server, upload, clock, note, fault):
    server.fail("submit", **fault)
    done = upload()
    assert done.code == 3
    assert "is not in the server's list" in done.line
    assert clock.retries() == [1, 2, 4]
    assert note.read()["submission"] is None

    done = upload()
    assert done.code == 1
    assert "--again" in done.line
    assert note.read()["file"] in done.error
    assert server.count("submit") == 1

    done = upload("--again")
    assert done.code == 0
    assert server.count("submit") == 2
    assert len(server.submissions) == 1


def test_an_answer_lost_and_listed_late(server, upload, clock):
    server.fail("submit", effect=True)
    server.fail("list", 2, status=200, body=[])
    assert upload().code == 0
    assert server.count("list") == 3
    assert clock.retries() == [1, 2, 4]
    assert server.count("submit") == 1


def test_an_answer_lost_and_listed_for_the_next_command(server, upload, note):
    server.fail("submit", effect=True)
    server.unlisted = True
    assert upload().code == 3
    server.unlisted = False
    done = upload()
    assert (done.code, done.out.splitlines()[0]) == (0, "submission 4000")
    assert note.read()["submission"] == 4000
    assert server.count("submit") == 1


@pytest.mark.parametrize(
    "fault",
    [
        DROP,
        {"status": 503},
        {"status": 401, "body": {"detail": "no"}},
        {"status": 403, "body": {"detail": "no"}},
        {"status": 404},
        {"status": 200, "body": "<html>"},
        {"status": 200, "body": [{"filename": None}, {"id": 5}, 5, None]},
        {"status": 200, "body": [{"id": "abc"}]},
        {"status": 200, "body": {"results": None}},
        {"status": 200, "body": {"results": 5}},
        {"status": 200, "body": {"results": [None]}},
    ],
    ids=str,
)
def test_an_answer_lost_and_no_list(server, upload, note, fault):
    """As long as nobody knows whether the submission exists, the note must stay."""
    server.fail("submit", effect=True)
    server.fail("list", math.inf, **fault)
    assert upload().code in (1, 3)
    assert note.read()["submission"] is None
    server.fix()
    assert upload().code == 0
    assert server.count("submit") == len(server.submissions) == 1


def test_other_submissions_in_the_list_are_not_taken_for_it(server, upload):
    assert upload().code == 0
    assert upload("--again").code == 0
    server.fail("submit")
    assert upload("--again").code == 3
    assert len(server.submissions) == 2
    assert len({submission.name for submission in server.submissions.values()}) == 2


@pytest.mark.parametrize(("status", "tries"), [(503, 1), (429, 6)])
def test_a_submission_that_is_never_accepted(server, upload, status, tries):
    server.fail("submit", math.inf, status=status)
    assert upload().code == 3
    assert server.count("submit") == tries
    assert server.submissions == {}


# --- past a limit, the server breaks with a page instead of a reason


def test_a_limit_that_was_reached_meanwhile(server, upload, note):
    server.can_later = {"can": False, "reason": "Reached maximum submissions per day"}
    done = upload()
    assert done.code == 1
    assert "Reached maximum submissions per day" in done.line
    assert server.count("permission") == 2
    assert server.count("submit") == 1
    assert server.submissions == {}
    assert not note.path().exists()
    server.can = server.can_later = {"can": True, "reason": None}
    assert upload().code == 0
    assert len(server.submissions) == 1


def test_a_submission_that_reaches_the_limit_and_whose_answer_breaks(server, upload):
    """It exists, and is itself the reason why no other is accepted."""
    server.fail("submit", status=500, body="<html>", effect=True)
    assert upload().code == 0
    assert server.count("permission") == 1
    assert server.count("submit") == len(server.submissions) == 1


@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 200, "body": "<html>"}, DROP], ids=str)
def test_a_limit_that_cannot_be_asked_for(server, upload, note, fault):
    server.fail("submit", status=500)
    server.fail("permission", status=200, body={"can": True}, effect=True)
    server.fail("permission", math.inf, **fault)
    done = upload()
    assert done.code == 3
    assert done.line
    assert note.read()["submission"] is None


@pytest.mark.parametrize("fault", [DROP, {"status": 502}, {"status": 504}], ids=str)
def test_a_call_that_may_still_be_at_work_is_not_forgotten_because_of_a_limit(server, upload, note, fault):
    server.unlisted = True
    server.fail("submit", **fault, effect=True)
    server.fail("permission", status=200, body={"can": True}, effect=True)
    server.fail("permission", status=200, body={"can": False, "reason": "Reached maximum submissions per day"})
    assert upload().code == 3
    assert note.read()["submission"] is None
    server.unlisted = False
    assert upload().code == 0
    assert server.count("submit") == len(server.submissions) == 1
