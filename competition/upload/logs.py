"""Why a submission failed: the end of its logs, and the page of its details."""

import shlex
from pathlib import Path

from competition.upload.answers import field, visible_lines
from competition.upload.codabench import Server
from competition.upload.errors import NoAnswer, Refused

LINES = 15  # of each log
LOGS = (
    "prediction_ingestion_stderr",
    "prediction_stderr",
    "scoring_stderr",
    "prediction_ingestion_stdout",
    "scoring_stdout",
)


def failure_logs(server: Server, submission: int, path: Path) -> str:
    """The end of each log of a failed submission and the start of the page of its details. Without a log: what to do.

    Args:
        server: the server.
        submission: its id.
        path: the zip, for the command that finds the failure on this machine.

    Returns:
        Further lines for the error message; the first character is a line break.
    """
    problem = ""
    try:
        logs = _logs(server, submission)
    except (Refused, NoAnswer) as error:
        logs, problem = "", f" ({error})"
    if logs:
        return logs + _details(server, submission)
    command = f"python grade_submission.py {shlex.quote(str(path))} --data FOLDER"
    advice = f"the server sent no log{problem}; to find the failure on this machine: {command}"
    return f"{_details(server, submission)}\n{advice}"


def _logs(server: Server, submission: int) -> str:
    logs = field(server.ask("GET", f"submissions/{submission}/get_details/"), "logs", list)
    urls = {
        log.get("name"): log["data_file"]
        for log in logs
        if isinstance(log, dict) and isinstance(log.get("name"), str) and isinstance(log.get("data_file"), str)
    }
    texts = {name: server.text(urls[name]).strip() for name in LOGS if name in urls}
    return "".join(_section(f"end of {name}", text.splitlines()[-LINES:]) for name, text in texts.items() if text)


def _details(server: Server, submission: int) -> str:
    """The first lines of the detailed results, or "" if they are hidden, disabled or missing."""
    try:
        url = server.ask("GET", f"submissions/{submission}/get_detail_result/", kinds=(str,))
    except (Refused, NoAnswer):
        return ""
    # Redacted once more: a page can hide the token and control characters behind entities such as &#27;.
    lines = [server.redacted(line) for line in visible_lines(server.text(url))[:LINES]]
    return _section("start of the detailed results", lines) if lines else ""


def _section(title: str, lines: list[str]) -> str:
    return "".join([f"\nthe {title}:", *(f"\n  {line}" for line in lines)])
