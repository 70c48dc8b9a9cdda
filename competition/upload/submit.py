"""Submits a zip once. What was sent is noted beside the zip, in ZIP.HOST.phaseID.upload.json."""

import json
import re
import secrets
import time
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import UserError
from common.files import file_sha256, locked, write_json
from competition.package.archive import LIMIT_MB, LOCAL_CHECKS, inspect, may_be_unpacked
from competition.upload.answers import field, ids, number, one_line
from competition.upload.codabench import Server, checked_url
from competition.upload.errors import NoAnswer, Refused, Unclear
from competition.upload.retries import PAUSE, SERVER_ERROR

LOOKUPS = 3  # searches of the list for a submission whose creation was not answered
NAME_LENGTH = 12  # characters of the zip's name that are sent


@dataclass
class Note:
    """What was sent. It is kept beside the zip so that nothing is sent twice.

    submission: its id; None from just before it is created until the server has answered.
    """

    server: str
    phase: int
    sha256: str
    file: str
    submission: int | None = None


def check_zip(path: str | Path, limit_mb: float = LIMIT_MB) -> list[str]:
    """Checks a zip before it is sent.

    Args:
        path: the zip.
        limit_mb: largest size accepted, in MB of 1,000,000 bytes.

    Returns:
        Warnings: failed checks that a server does not make.

    Raises:
        Refused: the server would reject the zip.
    """
    checks = inspect(path, limit_mb)
    failed = [check for check in checks if not check.passed]
    if may_be_unpacked(checks):
        return [f"the server may refuse it, {check.name}: {check.reason}; {check.fix}" for check in failed]
    check = min(failed, key=lambda check: check.name in LOCAL_CHECKS)  # the first one that the server makes
    raise Refused(f"not sent, {check.name}: {check.reason}; {check.fix}")


def send(
    server: Server,
    path: str | Path,
    phase: int,
    competition: int | None = None,
    again: bool = False,
    dry_run: bool = False,
) -> int | None:
    """Submits a zip, unless it was submitted before.

    Args:
        server: the server.
        path: the zip.
        phase: id of the competition's phase.
        competition: id of the competition; None finds it from the phase.
        again: submit even if the same zip was submitted before.
        dry_run: stop before anything is sent.

    Returns:
        Id of the submission; None for a dry run.

    Raises:
        Refused, NoAnswer: see `Server.ask`.
        UserError: the note beside the zip is damaged, or another process is submitting the zip.
    """
    path = Path(path)
    place = note_path(path, server.url, phase)
    if dry_run:
        _require_permission(server, phase)
        return None
    with locked(place.with_suffix(".lock"), f"the upload of {path}", instead="end it"):
        sha256, before = file_sha256(path), _noted(path, server.url, phase)
        if before and before.sha256 == sha256 and not again:
            return _submitted_before(server, before, place)
        _require_permission(server, phase)
        competition = find_competition(server, phase) if competition is None else competition
        note = Note(server.url, phase, sha256, remote_name(path))
        key = _upload(server, path, note.file, competition)
        write_json(place, asdict(note))
        try:
            note.submission = _create(server, note, key)
        except Refused:  # it was not created: restore what was noted before
            place.unlink()
            if before:
                write_json(place, asdict(before))
            raise
        write_json(place, asdict(note))
        return note.submission


def note_path(path: Path, url: str, phase: int) -> Path:
    """The place of the note about a zip, a server and a phase."""
    server = re.sub(r"[^A-Za-z0-9.-]+", "_", url.partition("://")[2])
    return path.with_name(f"{path.name}.{server}.phase{phase}.upload.json")


def remote_name(path: Path) -> str:
    """A new, unique name for a zip, of A-Z a-z 0-9 _ . - only: Codabench changes other characters."""
    letters = unicodedata.normalize("NFKD", path.stem)
    stem = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)[:NAME_LENGTH]}-{secrets.token_hex(5)}.zip"


def find_competition(server: Server, phase: int) -> int:
    """The id of the competition that a phase belongs to, among those that the user takes part in.

    Raises:
        Refused: it is not found. NoAnswer: see `Server.ask`.
    """
    reason = "no competition that you take part in has this phase"
    try:
        for row in server.rows("competitions/", participating_in="true"):
            competition = number(row, "id")
            if "phases" not in row:  # some versions list only titles and the like
                row = server.ask("GET", f"competitions/{competition}/")
            if phase in ids(field(row, "phases"), "phases"):
                return competition
    except Refused as error:
        reason = str(error)
    except NoAnswer as error:
        raise NoAnswer(
            f"{error}; give the same command again, or the competition's id with --competition ID"
        ) from error
    raise Refused(f"the competition of phase {phase} was not found: {reason}; give its id with --competition ID")


def _require_permission(server: Server, phase: int) -> None:
    if reason := _refusal(server, phase):
        raise Refused(f"the server accepts no submission now: {reason}")


def _refusal(server: Server, phase: int) -> str:
    """Why a phase accepts no submission now, or "" if it does."""
    permission = server.ask("GET", f"can_make_submission/{phase}/")
    return "" if field(permission, "can") else one_line(permission.get("reason") or "no reason is given")


def _upload(server: Server, path: Path, name: str, competition: int) -> str:
    """Sends the zip as a dataset.

    Without `competition` and `file_name` Codabench counts the dataset as unused, and may delete it.

    Returns:
        Key of the dataset.
    """
    order = {
        "type": "submission",
        "competition": competition,
        "file_name": name,
        "request_sassy_file_name": name,
        "file_size": path.stat().st_size,
    }
    place = server.ask("POST", "datasets/", json=order)
    key = field(place, "key", str)
    server.put(field(place, "sassy_url", str), path)
    return field(server.ask("PUT", f"datasets/completed/{key}/"), "key", str)


def _create(server: Server, note: Note, key: str) -> int:
    """Creates the submission with one call. If no clear answer comes, the server's list is searched for it."""
    problem: NoAnswer | Unclear
    try:
        return number(
            server.ask("POST", "submissions/", repeatable=False, json={"phase": note.phase, "data": key}), "id"
        )
    except (NoAnswer, Unclear) as error:
        problem = error
    try:
        for attempt in range(LOOKUPS):
            time.sleep(PAUSE * 2**attempt)
            submission = _look_up(server, note)
            if submission is not None:
                return submission
        # Past a limit, Codabench breaks with status 500. Other failures may hide a call that is still at work.
        broken = isinstance(problem, NoAnswer) and problem.status == SERVER_ERROR
        reason = _refusal(server, note.phase) if broken else ""
    except Refused as error:  # concerns the list, and says nothing about the submission
        raise NoAnswer(f"{problem}; the server does not show whether the submission exists: {error}") from error
    if reason:
        raise Refused(f"the server accepts no submission now: {reason}")
    raise NoAnswer(
        f"{problem}; the submission is not in the server's list and may be lost: give the same command again"
    )


def _submitted_before(server: Server, note: Note, place: Path) -> int:
    """The id of a submission that an earlier command created."""
    if note.submission is None:
        note.submission = _look_up(server, note)
        if note.submission is None:
            raise Refused(
                f"an earlier command submitted this zip and got no answer, and the server does not list {note.file}; "
                "look for it on the competition's page, and if it is not there, give --again"
            )
        write_json(place, asdict(note))
    return note.submission


def _look_up(server: Server, note: Note) -> int | None:
    """The id of the submission of this very upload, or None if the server does not list it.

    The children of a submission to several tasks have its file name too; they name their parent.
    """
    for row in server.rows("submissions/", phase=note.phase):
        if row.get("filename") == note.file:
            return number(row, "parent" if row.get("parent") else "id")
    return None


def _noted(path: Path, url: str, phase: int) -> Note | None:
    """The note about a zip, a server and a phase. Earlier versions left the server out of its name."""
    for place in (note_path(path, url, phase), path.with_name(f"{path.name}.phase{phase}.upload.json")):
        note = _read_note(place)
        if note and (note.server, note.phase) == (url, phase):
            return note
    return None


def _read_note(place: Path) -> Note | None:
    try:
        note = Note(**json.loads(place.read_text("utf-8")))
        note.server = checked_url(str(note.server))
        if not isinstance(note.submission, (int, type(None))):
            raise ValueError(f"submission {note.submission}")
        return note
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, UserError) as error:
        raise UserError(
            f"{place} is damaged ({error}); see on the competition's page what was submitted, then delete it"
        ) from error
