"""Waiting for the scores: of a submission, and of a phase with several tasks."""

import math
import re

import pytest

pytestmark = pytest.mark.unit

STATUSES = ["Submitting", "Preparing", "Scoring", "Running", "Finished"]


def statuses(done):
    """The statuses of the submission itself, as printed."""
    return re.findall(r"^ +\d+ s  (\w+)$", done.out, re.MULTILINE)


def test_the_statuses_are_followed_in_the_order_of_the_server(upload):
    """Which reports Finished before the scores are there."""
    done = upload()
    assert done.code == 0
    assert statuses(done) == STATUSES


def test_late_scores(server, upload):
    server.late = 40
    assert upload().code == 0
    assert server.count("submission") == 5 + 40 + 1


def test_scores_that_come_one_after_another(server, upload):
    """The server writes them so. Two polls with the same scores show that they are complete."""
    server.one_by_one = True
    server.scores = [{"column_key": key, "score": "0.5"} for key in ("accuracy", "F1", "AUC")]
    done = upload()
    assert done.code == 0
    assert done.out.splitlines()[-3:] == ["accuracy  0.5", "F1        0.5", "AUC       0.5"]


def test_a_score_that_is_not_a_number_is_printed_like_others(server, upload):
    """It never equals itself, also not in the next poll."""
    server.scores = [{"column_key": "accuracy", "score": "nan"}]
    done = upload()
    assert (done.code, done.out.splitlines()[-1]) == (0, "accuracy  nan")
    assert server.count("submission") < 20


def test_without_time_to_wait_the_scores_that_are_there_are_printed(server, upload):
    server.statuses, server.late = ["Finished"], 0
    done = upload("--wait", "0")
    assert (done.code, server.count("submission")) == (0, 2)
    assert done.out.endswith("accuracy  0.9125\n")


@pytest.mark.parametrize(("wait", "polls"), [("0", 2), ("12", 4)])
def test_no_scores_in_time(server, upload, wait, polls):
    server.statuses, server.late = ["Finished"], 10_000
    done = upload("--wait", wait)
    assert done.code == 3
    for words in ("submission 4000", f"no scores after {wait} s", "Finished", "same command again"):
        assert words in done.line
    assert server.count("submission") == polls
    upload("--wait", "0")
    assert server.count("submit") == 1


def test_an_unknown_status_is_waited_for(server, upload):
    server.statuses = ["Unknown", "Submitted", "Running", "Running", "Finished"]
    done = upload()
    assert done.code == 0
    assert statuses(done) == ["Unknown", "Submitted", "Running", "Finished"]


def test_a_failed_submission_is_not_sent_again(failing, upload):
    assert upload().code == 1
    assert upload().code == 1
    assert failing.count("submit") == 1


# --- phases with several tasks


@pytest.fixture
def two_tasks(server, make_task):
    """A phase with two tasks: the submission is a parent that gets no scores and no logs of its own."""
    server.tasks = [
        make_task("easy", scores=[{"column_key": "accuracy", "score": "0.9"}, {"column_key": "F1", "score": "0.8"}]),
        make_task("hard", scores=[{"column_key": "accuracy", "score": "0.4"}], late=5),
    ]
    return server


@pytest.mark.parametrize("child_objects", [False, True])
@pytest.mark.parametrize("children_late", [0, 1, 4])
def test_the_scores_of_each_task(two_tasks, upload, child_objects, children_late):
    two_tasks.child_objects, two_tasks.children_late = child_objects, children_late
    done = upload()
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-5:] == [
        "easy (submission 4001)",
        "  accuracy  0.9",
        "  F1        0.8",
        "hard (submission 4002)",
        "  accuracy  0.4",
    ]
    assert statuses(done) == STATUSES
    for label in ("easy (submission 4001)", "hard (submission 4002)"):
        assert re.findall(rf"s  {re.escape(label)}: (\w+)", done.out) == [
            "Submitted",
            "Preparing",
            "Scoring",
            "Running",
            "Finished",
        ]


def test_a_task_that_is_scored_is_not_polled_again(two_tasks, upload):
    upload()
    polls = [call.path for call in two_tasks.calls if call.endpoint == "submission"]
    assert polls.count("/api/submissions/4001/") == 7
    assert polls.count("/api/submissions/4002/") == 11


def test_a_parent_is_watched_again_by_the_same_command(two_tasks, upload):
    first, second = upload(), upload()
    assert second.code == 0
    assert second.out.splitlines()[-5:] == first.out.splitlines()[-5:]
    assert two_tasks.count("submit") == 1


@pytest.mark.parametrize("parent", ["Finished", "Failed"])
def test_a_task_that_fails(two_tasks, upload, parent):
    """The server ends the parent as Finished or as Failed, and its own reason says nothing."""
    hard = two_tasks.tasks[1]
    hard.statuses, hard.reason = ["Running", "Failed"], "no model.py"
    hard.logs = {"scoring_stderr": "the log of the task\n"}
    two_tasks.statuses[-1:] = ["Running"] * 5 + [parent]
    two_tasks.reason, two_tasks.logs = "A child task failed", {"scoring_stderr": "never shown\n"}
    done = upload()
    assert done.code == 1
    assert done.error.splitlines() == [
        "error: submission 4000: 1 of 2 tasks failed",
        "hard (submission 4002) failed: no model.py",
        "the end of scoring_stderr:",
        "  the log of the task",
    ]
    assert done.out.endswith("easy (submission 4001)\n  accuracy  0.9\n  F1        0.8\n")
    assert two_tasks.count("submit") == 1


def test_all_tasks_fail(two_tasks, upload):
    for task in two_tasks.tasks:
        task.statuses, task.reason = ["Cancelled"], f"reason of {task.name}"
    done = upload()
    assert done.code == 1
    for words in ("2 of 2 tasks", "easy (submission 4001) cancelled: reason of easy", "reason of hard"):
        assert words in done.error


def test_a_parent_that_fails_before_its_tasks_have_ended(two_tasks, upload):
    for task in two_tasks.tasks:
        task.statuses = ["Running"]
    two_tasks.statuses, two_tasks.reason = ["Running", "Running", "Failed"], "the server is out of order"
    done = upload()
    assert done.code == 1
    assert "submission 4000 failed: the server is out of order" in done.error


def test_a_parent_without_scores_is_not_waited_for_longer_than_asked(two_tasks, upload):
    two_tasks.children_late = math.inf
    done = upload("--wait", "60")
    assert done.code == 3
    assert "no scores after 60 s" in done.line


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 200, "body": "<html>"}], ids=str)
def test_a_child_that_cannot_be_polled(two_tasks, upload, fault):
    two_tasks.children_late = 0
    two_tasks.fail("submission", status=200, body={"status": "Running", "children": [4001, 4002]})
    two_tasks.fail("submission", **fault)
    done = upload()
    assert done.code == 1
    assert done.line
    assert upload().code == 0
    assert two_tasks.count("submit") == 1


def test_a_running_parent_that_lists_its_first_task_only_is_waited_for(two_tasks, upload):
    child = {"status": "Finished", "scores": [{"column_key": "accuracy", "score": "0.9"}]}
    for _ in range(3):
        two_tasks.fail("submission", status=200, body={"status": "Running", "children": [4001]})
        two_tasks.fail("submission", status=200, body=child)
    done = upload()
    assert done.code == 0
    assert "hard (submission 4002)\n  accuracy  0.4" in done.out


@pytest.mark.parametrize("task", [None, 5, "easy", {}, {"name": 5}, {"name": None}], ids=str)
def test_a_child_whose_task_has_no_name(two_tasks, upload, task):
    child = {"status": "Finished", "scores": [{"column_key": "accuracy", "score": "1"}], "task": task}
    two_tasks.fail("submission", status=200, body={"status": "Finished", "children": [4001]})
    two_tasks.fail("submission", status=200, body=child)
    done = upload()
    assert done.code == 0
    assert "s  submission 4001: Finished\n" in done.out
