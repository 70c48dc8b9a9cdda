"""Zip → the competition's server (Codabench) → scores.

examples:
  python upload_submission.py --login --server https://www.codabench.org             once: name and password → token file
  python upload_submission.py dist/submission.zip --server https://www.codabench.org --phase 1234
  CODABENCH_TOKEN=… python upload_submission.py dist/submission.zip --server … --phase 1234 --dry-run

The token is taken from the environment variable CODABENCH_TOKEN, or from the file that --login writes (mode 600); it is
never printed. The phase's number stands in the competition's own data: GET SERVER/api/competitions/ID/ → phases. What has
been sent is noted beside the zip, in ZIP.phaseID.upload.json: the same command, given again, watches that submission and does not
send a second one.

exit codes: 0 scored (or --dry-run and allowed), 1 refused or failed, 2 wrong input, 3 no answer: give the command again,
130 interrupted
"""

import argparse
import getpass
import hashlib
import json
import os
import secrets
import stat
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from competition.archive import LIMIT_MB, inspect
from training.errors import UserError
from training.files import write_json

TOKEN = "CODABENCH_TOKEN"
TOKEN_FILE = "~/.config/codabench/token"
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
TRIES = 6
PAUSE = 1.0  # seconds before the second try, doubled for each further one
LONGEST_PAUSE = 300.0  # seconds that a server may ask to wait
POLL = 5.0  # seconds between two looks at a submission
LOOKUPS = 3  # looks for a submission whose creation was not answered
LOG_LINES = 15
LOGS = ("prediction_ingestion_stderr", "prediction_stderr", "scoring_stderr", "prediction_ingestion_stdout", "scoring_stdout")
PUT_OFF = 429
TRANSIENT = (PUT_OFF, 500, 502, 503, 504)
HIDDEN = "***"  # in the place of a token that the server has sent back


class Refused(Exception):
    """The server says no, or the submission failed; the text says why."""

    code = 1


class Unclear(Refused):
    """The server says yes, but what it says beside that is not Codabench's."""


class NoAnswer(Exception):
    """The server could not be reached or did not answer in the end."""

    code = 3


class Server:
    """Codabench's REST API, with the token in its header and nowhere else."""

    def __init__(self, url, token):
        self.url, self._token = checked_url(url), token
        self.session = requests.Session()

    def ask(self, method, path, repeatable=True, **body):
        """One call, tried again where that can do no harm. Returns the parsed JSON, a dictionary or a list.

        Args:
            method, path: of the call, below /api/.
            repeatable: False for a call that must not be made twice: it is repeated only if the server has put it off.
            body: for `requests`.

        Raises:
            Refused: the server says no. NoAnswer: it could not be reached, or failed each time.
        """

        def once():
            return self.session.request(method, f"{self.url}/api/{path}", auth=self._sign, timeout=TIMEOUT, allow_redirects=False, **body)

        answer = _answered(once, f"{method} {path}", repeatable, self._token)
        return _json(_hidden(answer.text, self._token), path)

    def put(self, url, path):
        """Sends a file to a presigned address, streamed from the disk, with a progress bar. The token stays here."""
        headers = {"Content-Type": "application/zip"}
        if _host(url).endswith(".blob.core.windows.net"):
            headers["x-ms-blob-type"] = "BlockBlob"

        def once():
            with open(path, "rb") as file, _Bar(file, path.stat().st_size) as body:
                return self.session.put(url, data=body, headers=headers, auth=_unsigned, timeout=TIMEOUT, allow_redirects=False)

        _answered(once, "the upload", secret=self._token)

    def text(self, url):
        """A log behind a presigned address, or ""."""
        try:
            answer = self.session.get(url, auth=_unsigned, timeout=TIMEOUT, allow_redirects=False)
        except requests.RequestException:
            return ""
        return _hidden(answer.content.decode("utf-8", "replace"), self._token) if answer.status_code == 200 else ""

    def _sign(self, request):
        request.headers["Authorization"] = f"Token {self._token}"
        return request


@dataclass
class Note:
    """What has been sent, kept beside the zip so that nothing is sent twice.

    submission: its number; None from the moment it is asked for until the server has answered.
    """

    server: str
    phase: int
    sha256: str
    file: str
    submission: int = None


def send(server, path, phase, again=False, dry_run=False):
    """Hands in a zip, unless it has been handed in already.

    Args:
        server: `Server`.
        path: the zip.
        phase: number of the competition's phase.
        again: hand it in even if it has been before.
        dry_run: stop before anything is sent.

    Returns:
        Number of the submission; None for a dry run.

    Raises:
        Refused, NoAnswer: see `Server.ask`.
    """
    path = Path(path)
    place = _note_path(path, phase)
    digest, before = _sha256(path), _read_note(place)
    same = before and (before.server, before.phase, before.sha256) == (server.url, phase, digest)
    if same and not again and not dry_run:
        return _handed_in_before(server, before, place)
    leave = server.ask("GET", f"can_make_submission/{phase}/")
    if not _field(leave, "can"):
        raise Refused(f"the server takes no submission now: {leave.get('reason') or 'it gives no reason'}")
    if dry_run:
        return None
    note = Note(server.url, phase, digest, f"{path.stem[:12]}-{secrets.token_hex(5)}.zip")
    key = _upload(server, path, note.file)
    write_json(place, asdict(note))
    try:
        note.submission = _create(server, note, key)
    except Refused:  # for certain, so there is nothing to remember but what was sent before
        place.unlink()
        if before:
            write_json(place, asdict(before))
        raise
    write_json(place, asdict(note))
    return note.submission


def watch(server, number, seconds, say):
    """Waits until a submission is scored; scores come some time after its end.

    Args:
        server: `Server`.
        number: of the submission.
        seconds: to wait at most.
        say: called with a line whenever the status changes.

    Returns:
        column key → score.

    Raises:
        Refused: it failed or was cancelled; the text ends with the tail of its logs. NoAnswer: no scores in time.
    """
    began, last = time.monotonic(), None
    while True:
        answer = server.ask("GET", f"submissions/{number}/")
        status = _field(answer, "status", str)
        if status != last:
            say(f"{time.monotonic() - began:5.0f} s  {status}")
            last = status
        if status in ("Failed", "Cancelled"):
            reason = answer.get("status_details") or "the server gives no reason"
            raise Refused(f"submission {number} {status.lower()}: {reason}{_logs(server, number)}")
        scores = {_field(score, "column_key", str): _number(score, "score", float) for score in _list(answer.get("scores") or [], "scores")}
        if status == "Finished" and scores:
            return scores
        if time.monotonic() - began > seconds:
            raise NoAnswer(f"submission {number} has no scores after {seconds:g} s, it is {status}; give the same command again to go on")
        time.sleep(POLL)


def checked_url(url):
    """The server's address without a slash at its end. Raises a UserError for one that a token must not be sent to."""
    scheme, host = url.partition(":")[0].lower(), _host(url)
    if scheme not in ("http", "https") or not host:
        raise UserError(f"--server {url} is no address; give for example https://www.codabench.org")
    if scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(f"--server {url} would send the token unencrypted; give its https address")
    return url.rstrip("/").removesuffix("/api")


def read_token(file):
    """The token from the environment or from a file that only its owner can read.

    Raises:
        UserError: neither, or a file that others can read.
    """
    token = os.environ.get(TOKEN, "").strip()
    path = Path(file).expanduser()
    if not token:
        if not path.is_file():
            raise UserError(f"no token: set {TOKEN}, or write {path} with --login")
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UserError(f"others can read the token in {path}; close it: chmod 600 {path}")
        token = path.read_text("utf-8", errors="replace").strip()
    if not _is_token(token):
        raise UserError(f"what {TOKEN} or {path} holds is no token; make a new one with --login")
    return token


def login(url, file):
    """Asks for name and password, and keeps the token that the server gives for them in a file of mode 600.

    Raises:
        Refused, NoAnswer: see `Server.ask`. UserError: there is nobody to ask.
    """
    address, path = checked_url(url), Path(file).expanduser()
    try:
        form = {"username": input(f"user name at {_host(address)}: "), "password": getpass.getpass("password: ")}
    except EOFError as error:
        raise UserError(f"nobody can be asked for the password here; give --login at a terminal, or set {TOKEN}") from error

    def once():
        return requests.post(f"{address}/api/api-token-auth/", data=form, auth=_unsigned, timeout=TIMEOUT, allow_redirects=False)

    token = _field(_json(_answered(once, "the login", secret=form["password"]).text, "api-token-auth/"), "token", str)
    if not _is_token(token):
        raise Unclear("api-token-auth/: the answer is no token; check --server")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
        target.write(f"{token}\n")
    os.replace(temporary, path)
    return path


def _upload(server, path, name):
    """The zip as a dataset on the server. Returns its key."""
    order = {"type": "submission", "request_sassy_file_name": name, "file_size": path.stat().st_size}
    place = server.ask("POST", "datasets/", json=order)
    server.put(_field(place, "sassy_url", str), path)
    return _field(server.ask("PUT", f"datasets/completed/{_field(place, 'key', str)}/"), "key", str)


def _create(server, note, key):
    """The submission itself: asked for once. Where no clear answer comes, the server is asked whether it is there."""
    try:
        answer = server.ask("POST", "submissions/", repeatable=False, json={"phase": note.phase, "data": key})
        return _number(answer, "id", int)
    except (NoAnswer, Unclear) as error:
        problem = str(error)
    try:
        for attempt in range(LOOKUPS):
            time.sleep(PAUSE * 2**attempt)
            number = _look_up(server, note)
            if number is not None:
                return number
    except Refused as error:  # of the list: it says nothing about the submission
        raise NoAnswer(f"{problem}; whether the submission is there cannot be seen: {error}") from error
    raise NoAnswer(f"{problem}; the submission is not in the server's list, so it may have been lost: give the command again")


def _handed_in_before(server, note, place):
    """The number of a submission that an earlier command has asked for."""
    if note.submission is None:
        note.submission = _look_up(server, note)
        if note.submission is None:
            raise Refused(
                f"an earlier command asked for this submission and got no answer, and the server does not list {note.file}; "
                "look at the competition's page, and if it is not there: --again"
            )
        write_json(place, asdict(note))
    return note.submission


def _look_up(server, note):
    """The number of the submission of this very file, or None where the server does not list it."""
    answer = server.ask("GET", "submissions/", params={"phase": note.phase})
    rows = _list(answer.get("results") if isinstance(answer, dict) else answer, "list of submissions")
    return next((_number(row, "id", int) for row in rows if isinstance(row, dict) and row.get("filename") == note.file), None)


def _answered(once, what, repeatable=True, secret=""):
    """A call's good answer; a failure that may pass is tried again, each time after a longer pause.

    A call that is not repeatable is tried again only where the server has put it off, for then it did nothing.
    The secret is never shown, even where the server sends it back.

    Raises:
        Refused: an answer that will not change. NoAnswer: none, or a failure each time.
    """
    for attempt in range(1, TRIES + 1):
        pause = PAUSE * 2 ** (attempt - 1)
        put_off = False
        try:
            answer = once()
        except requests.RequestException as error:
            if isinstance(error, ValueError):
                raise Refused(f"{what}: there is no such address; check --server") from error
            reason = _network_reason(error)
        else:
            if answer.is_redirect:
                place = _host(answer.headers["Location"]) or "another of its pages"
                raise Refused(_hidden(f"{what}: the server refers to {place}; check --server", secret))
            if answer.status_code < 300:
                return answer
            reason = f"the server answered {answer.status_code}: {_reason(answer, secret)}"
            if answer.status_code not in TRANSIENT:
                raise Refused(f"{what}: {reason}{_advice(answer.status_code)}")
            pause, put_off = _asked_pause(answer, pause), answer.status_code == PUT_OFF
        if not (repeatable or put_off):
            break
        if attempt < TRIES:
            print(f"{what}: {reason}; again in {pause:.0f} s", file=sys.stderr)
            time.sleep(pause)
    raise NoAnswer(f"{what}: {reason}")


def _network_reason(error):
    """What a connection failed of, without the address, for that may hold a signature."""
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not accepted"
    return "the connection was refused or broke off"


def _reason(answer, secret):
    """The server's own words, as one line."""
    text = _hidden(answer.text, secret)
    try:
        value = json.loads(text)
    except ValueError:
        value = "" if "html" in answer.headers.get("Content-Type", "") else text[:200]
    if isinstance(value, dict):
        value = value.get("detail") or value.get("error") or "; ".join(f"{key}: {text}" for key, text in value.items())
    line = " ".join(str(value).split()) or answer.reason or "no reason"
    return _hidden(line, secret)[:500]


def _advice(status):
    advice = {
        401: "; the token is not valid: make a new one with --login",
        404: "; check --server and --phase",
        413: "; build a smaller zip, or ask the organisers for the limit",
    }
    return advice.get(status, "")


def _asked_pause(answer, pause):
    """The pause that the server asks for, in seconds, if it does."""
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE) if asked.isdecimal() else pause


def _hidden(text, secret):
    """What a server sent, without the secret, and without what a terminal would obey."""
    text = text.replace(secret, HIDDEN) if secret else text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text.replace("\r\n", "\n"))


def _host(url):
    """The host of an address, in small letters, or ""."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_token(text):
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _json(text, path):
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, (dict, list)):
        raise Unclear(f"{path}: the answer is not Codabench's; check --server")
    return value


def _field(value, name, kind=object):
    if not isinstance(value, dict) or value.get(name) is None or not isinstance(value[name], kind):
        raise Unclear(f"the server's answer has no {name}; check --server")
    return value[name]


def _number(value, name, kind):
    try:
        return kind(_field(value, name))
    except (TypeError, ValueError) as error:
        raise Unclear(f"the server's answer has a {name} that is no number; check --server") from error


def _list(value, name):
    if not isinstance(value, list):
        raise Unclear(f"the server's answer has no {name}; check --server")
    return value


def _logs(server, number):
    """The end of each log of a submission, as further lines, or why there are none."""
    try:
        logs = _field(server.ask("GET", f"submissions/{number}/get_details/"), "logs", list)
    except (Refused, NoAnswer) as error:
        return f"\n(no logs: {error})"
    by_name = {log.get("name"): log["data_file"] for log in logs if isinstance(log, dict) and isinstance(log.get("data_file"), str)}
    lines = []
    for name in LOGS:
        text = server.text(by_name[name]).strip() if name in by_name else ""
        if text:
            lines += [f"\nthe end of {name}:", *(f"\n  {line}" for line in text.splitlines()[-LOG_LINES:])]
    return "".join(lines)


def _unsigned(request):
    """Instead of a login from a .netrc file, which the library would take by itself."""
    return request


class _Bar:
    """A file that shows how much of it has been read, how fast, and how long it still takes."""

    def __init__(self, file, size):
        self.file, self.size = file, size

    def __enter__(self):
        pause = 0.2 if sys.stderr.isatty() else 30
        self.bar = tqdm(desc="uploading", total=self.size, unit="B", unit_scale=True, delay=1, leave=False, mininterval=pause)
        return self

    def __exit__(self, *_):
        self.bar.close()

    def __len__(self):
        return self.size

    def read(self, size=-1):
        data = self.file.read(size)
        self.bar.update(len(data))
        return data


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _note_path(path, phase):
    return path.with_name(f"{path.name}.phase{phase}.upload.json")


def _read_note(place):
    try:
        note = Note(**json.loads(place.read_text("utf-8")))
        if not isinstance(note.submission, (int, type(None))):
            raise ValueError(f"submission {note.submission}")
        return note
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{place} is damaged ({error}); look at the competition's page for what was sent, then delete it") from error


def _checked_zip(path, limit_mb):
    for check in inspect(path, limit_mb):
        if not check.passed:
            raise Refused(f"not sent, {check.name}: {check.reason}; {check.mend}")


def main(arguments=None):
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("zip", nargs="?")
    parser.add_argument("--server", required=True, metavar="URL")
    parser.add_argument("--phase", type=int, metavar="ID")
    parser.add_argument("--login", action="store_true", help="ask for name and password, and write the token file")
    parser.add_argument("--token-file", default=TOKEN_FILE, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB, help="the server's limit (default %(default)s)")
    parser.add_argument("--wait", type=float, default=3600, metavar="SECONDS", help="for the scores (default %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="check the zip and ask the server for leave, but send nothing")
    parser.add_argument("--again", action="store_true", help="hand in a zip that has been handed in before")
    options = parser.parse_args(arguments)
    if not options.login and (not options.zip or options.phase is None):
        parser.error("give the zip and --phase, or --login")
    number = None
    try:
        if options.login:
            print(f"the token is in {login(options.server, options.token_file)}")
            return 0
        server = Server(options.server, read_token(options.token_file))
        _checked_zip(options.zip, options.limit_mb)
        number = send(server, options.zip, options.phase, options.again, options.dry_run)
        if number is None:
            print(f"allowed: {options.zip} ({Path(options.zip).stat().st_size / 1e6:.1f} MB) could be handed in to phase {options.phase}")
            return 0
        print(f"submission {number}", flush=True)
        scores = watch(server, number, options.wait, lambda line: print(line, flush=True))
        width = max(map(len, scores))
        print("\n".join(f"{key:{width}}  {value:g}" for key, value in scores.items()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Refused, NoAnswer) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"error: {error.filename or options.zip}: {error.strerror or error}; check the path and the disk", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = f"; submission {number} goes on at the server, give the command again to watch it" if number else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
