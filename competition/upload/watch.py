"""Waits for the scores of a submission. In a phase with several tasks, each task is a child submission of its own."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from competition.upload.answers import field, ids, items, number, one_line
from competition.upload.codabench import Server
from competition.upload.errors import NoAnswer, Refused
from competition.upload.logs import failure_logs

POLL = 5.0  # seconds between two polls
FAILED = ("Failed", "Cancelled")


@dataclass
class State:
    """A submission as one poll shows it.

    task: name of its task, if the server tells. reason: why it failed. scores: column key → score; empty until it is
    scored, and empty in a submission that has children. children: ids, one for each task.
    """

    submission: int
    task: str
    status: str
    reason: str
    scores: dict[str, float]
    children: list[int]

    @property
    def failed(self) -> bool:
        """Whether it failed or was cancelled."""
        return self.status in FAILED

    @property
    def scored(self) -> bool:
        """Whether scores are there; they come some time after the status Finished, one after another."""
        return self.status == "Finished" and bool(self.scores)

    @property
    def label(self) -> str:
        """The task and the id, for messages."""
        return f"{self.task} (submission {self.submission})" if self.task else f"submission {self.submission}"


def watch(server: Server, submission: int, seconds: float, say: Callable[[str], None], path: Path) -> list[State]:
    """Waits until a submission is scored.

    Args:
        server: the server.
        submission: its id.
        seconds: to wait at most.
        say: is called with a line whenever a status changes, and with the scores of some tasks if others failed.
        path: the zip, for the advice after a failure.

    Returns:
        The scored states: one for each task, or that of the submission itself if it has no children.

    Raises:
        Refused: a task failed or was cancelled; the text ends with its logs.
        NoAnswer: no scores in time.
    """
    began = time.monotonic()
    known: dict[int, State] = {}
    ended: dict[int, State] = {}
    while True:
        parent = poll(server, submission)
        tasks = [ended.get(child) or poll(server, child) for child in parent.children]
        over = time.monotonic() - began > seconds
        for state in (parent, *tasks):
            before = known.get(state.submission)
            if before is None or before.status != state.status:
                name = f"{state.label}: " if tasks and state is not parent else ""
                say(f"{time.monotonic() - began:5.0f} s  {name}{state.status}")
            known[state.submission] = state
            if _has_ended(state, before, over):
                ended[state.submission] = state
        tasks = tasks or [parent]
        complete = not parent.children or parent.status == "Finished"  # a running one may get more tasks
        if parent.failed or (complete and all(task.submission in ended for task in tasks)):
            break
        if over:
            raise NoAnswer(
                f"submission {submission} has no scores after {seconds:g} s, its status is {parent.status}; "
                "give the same command again to go on"
            )
        time.sleep(POLL)
    scored, failed = [task for task in tasks if task.scored], [task for task in tasks if task.failed]
    if parent.failed or failed:
        if scored:
            say("\n".join(score_lines(scored, len(tasks) > 1)))
        raise Refused(_failure(server, parent, failed or [parent], len(tasks), path))
    return scored


def poll(server: Server, submission: int) -> State:
    """Asks for the state of a submission once."""
    answer = server.ask("GET", f"submissions/{submission}/")
    status = field(answer, "status", str)
    task = answer.get("task")
    name = task.get("name") if isinstance(task, dict) else None
    scores = items(answer.get("scores") or [], "scores")
    return State(
        submission,
        one_line(name) if isinstance(name, str) else "",
        status,
        one_line(answer.get("status_details") or "the server gives no reason"),
        {field(score, "column_key", str): number(score, "score", float) for score in scores},
        ids(answer.get("children") or [], "children"),
    )


def score_lines(states: list[State], named: bool) -> list[str]:
    """The scores as aligned lines, below the name of each task if `named`."""
    width = max(len(key) for state in states for key in state.scores)
    lines = []
    for state in states:
        lines += [state.label] if named else []
        lines += [f"{'  ' if named else ''}{key:{width}}  {score:g}" for key, score in state.scores.items()]
    return lines


def _has_ended(state: State, before: State | None, over: bool) -> bool:
    """Whether a task failed, or has the same scores as in the poll before, so that no more of them come.

    Args:
        state, before: of the task, in this poll and in the one before, if there was one.
        over: whether the time is over, so that the scores that are there are taken.
    """
    complete = over or (before is not None and str(before.scores) == str(state.scores))  # NaN differs from itself
    return state.failed or (state.scored and complete)


def _failure(server: Server, parent: State, failed: list[State], tasks: int, path: Path) -> str:
    """What failed and why, with the end of the logs, as one text of several lines."""
    texts = []
    for state in failed:
        name = f"submission {state.submission}" if state is parent else state.label
        logs = failure_logs(server, state.submission, path)
        texts.append(f"{name} {state.status.lower()}: {state.reason}{logs}")
    if failed == [parent]:
        return texts[0]
    return "\n".join([f"submission {parent.submission}: {len(failed)} of {tasks} tasks failed", *texts])
