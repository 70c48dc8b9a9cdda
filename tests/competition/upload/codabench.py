"""An imitation of Codabench's REST API as far as submitting needs it: strict, local, and failing on request.

Every call is recorded in `calls`. Whatever a well-behaved client does not do is recorded in `violations`.
"""

import hashlib
import itertools
import json
import math
import re
import secrets
import socket
import socketserver
import struct
import sys
import threading
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "0123456789abcdef0123456789abcdef0123fade"
PHASE = 7
COMPETITION = 12
CHUNK = 1 << 16
PAGE = 2  # rows of a page, where lists come in pages
UNSIGNED = ("login", "storage", "log", "page")  # calls that must not carry the token
JSON = "application/json"
HTML = "text/html; charset=utf-8"
SERVER_ERROR = "<!doctype html>\n<html><head><title>Server Error (500)</title></head><body></body></html>"
ROUTES = {
    ("POST", r"/api/api-token-auth/"): "login",
    ("GET", r"/api/can_make_submission/(\d+)/"): "permission",
    ("GET", r"/api/competitions/"): "competitions",
    ("GET", r"/api/competitions/(\d+)/"): "competition",
    ("POST", r"/api/datasets/"): "dataset",
    ("PUT", r"/storage/([0-9a-f-]+)"): "storage",
    ("PUT", r"/api/datasets/completed/([0-9a-f-]+)/"): "completed",
    ("POST", r"/api/submissions/"): "submit",
    ("GET", r"/api/submissions/"): "list",
    ("GET", r"/api/submissions/(\d+)/"): "submission",
    ("GET", r"/api/submissions/(\d+)/get_details/"): "details",
    ("GET", r"/api/submissions/(\d+)/get_detail_result/"): "detail_result",
    ("GET", r"/logs/(\d+)/(\w+)"): "log",
    ("GET", r"/pages/(\d+)"): "page",
}


@dataclass
class Fault:
    """What a call gets instead of its answer.

    status: answer with it; None: no answer, the connection breaks off.
    body: bytes, text or a JSON value, with headers and the phrase beside the status.
    after: bytes of the body that are read before the connection breaks off; None: all of them.
    effect: the call does what it should, only its answer is not this.
    hang: seconds without a byte before that.
    """

    status: int = None
    body: object = b""
    headers: dict = field(default_factory=dict)
    phrase: str = None
    after: int = None
    effect: bool = False
    hang: float = 0


@dataclass
class Call:
    """One call as it came in."""

    endpoint: str
    method: str
    path: str
    headers: dict
    body: bytes = b""
    finished: bool = False


@dataclass
class Dataset:
    """A zip on its way."""

    name: str
    size: int
    competition: int
    secret: str
    sha256: str = None
    completed: bool = False


@dataclass
class Task:
    """One task of a phase, and what its child submissions go through. See `Codabench`."""

    name: str
    statuses: list = field(default_factory=lambda: ["Submitted", "Preparing", "Scoring", "Running", "Finished"])
    late: int = 1
    scores: object = field(default_factory=lambda: [{"column_key": "accuracy", "score": "0.5000000000"}])
    reason: str = None
    logs: dict = field(default_factory=dict)
    page: str = None


@dataclass
class Submission:
    """A submission and what the coming polls of it will see: (status, scores), the last one for ever."""

    phase: int
    name: str
    polls: list
    task: Task
    parent: int = None
    children: list = field(default_factory=list)
    asked: int = 0


class Codabench:
    """The server. Set the attributes before the calls come; `fail` makes calls go wrong.

    statuses, late, scores, reason: what a new submission goes through, polls between its end and its scores, its scores
        and status_details after a failure. The order of the statuses is that of the real server.
    one_by_one: each poll after the end shows one score more.
    logs, page: name → text; the HTML of the detailed results, None: there are none.
    tasks: `Task`s of the phase; if any, a new submission is a parent without scores and without logs. children_late:
        polls before the parent lists its children. child_objects: it lists them as objects.
    can, can_later: the answer to can_make_submission/, and to the calls after the first.
    competitions: id → ids of its phases. phases_listed: the list of competitions holds the phases.
    login: name → password. sha256: that the zip must have. paged: lists come in pages. unlisted: the list of
    submissions stays empty. speed: bytes per second that the storage takes.
    """

    def __init__(self):
        self.token, self.phase, self.competition, self.login = TOKEN, PHASE, COMPETITION, {"me": "pä&ss=w?"}
        self.can, self.can_later = {"can": True, "reason": None}, None
        self.competitions, self.phases_listed = {11: [3], COMPETITION: [PHASE, 8]}, False
        self.statuses = ["Submitting", "Preparing", "Scoring", "Running", "Finished"]
        self.late, self.scores, self.reason = 1, [{"column_key": "accuracy", "score": "0.9125000000"}], None
        self.logs, self.page, self.tasks, self.children_late, self.child_objects = {}, None, [], 1, False
        self.sha256, self.paged, self.unlisted, self.speed, self.one_by_one = None, False, False, None, False
        self.calls, self.violations, self.datasets, self.submissions = [], [], {}, {}
        self._allowed, self._faults, self._lock, self._closing = set(), {}, threading.RLock(), threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.codabench = self
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def fail(self, endpoint, times=1, **fault):
        """Makes the coming calls of an endpoint go wrong as `Fault(**fault)` says; `times` may be math.inf."""
        fault = Fault(**fault)
        repeated = itertools.repeat(fault) if times == math.inf else itertools.repeat(fault, times)
        self._faults[endpoint] = itertools.chain(self._faults.get(endpoint, ()), repeated)

    def fix(self):
        """Ends all faults."""
        self._faults.clear()

    def count(self, endpoint):
        """How many calls of an endpoint have come in."""
        return sum(call.endpoint == endpoint for call in self.calls)

    def endpoints(self):
        """The endpoints in the order of the calls."""
        return [call.endpoint for call in self.calls]

    def parents(self):
        """The submissions that are not children."""
        return {number: submission for number, submission in self.submissions.items() if submission.parent is None}

    # --- what the handler calls

    def next_fault(self, endpoint):
        with self._lock:
            return next(self._faults.get(endpoint, iter(())), None)

    def violation(self, text):
        with self._lock:
            self.violations.append(text)

    def wait(self, seconds):
        self._closing.wait(seconds)

    def do(self, call, parts, query):
        """Carries out one call that has been read. Returns (status, JSON value or text)."""
        with self._lock:
            return getattr(self, f"_do_{call.endpoint}")(call, *parts, **query)

    def stored(self, key, size, sha256):
        """The bytes of a zip have arrived."""
        dataset = self.datasets.get(key)
        if dataset is None:
            return self._wrong(404, f"bytes for the unknown dataset {key}")
        if (dataset.size, self.sha256 or sha256) != (size, sha256):
            return self._wrong(400, f"{size} bytes that are not the zip of {dataset.size} bytes")
        dataset.sha256 = sha256
        return 200, ""

    # --- the endpoints

    def _do_login(self, call):
        form = {key: values[0] for key, values in parse_qs(call.body.decode()).items()}
        form_type = "application/x-www-form-urlencoded"
        if call.headers.get("content-type") != form_type or set(form) != {"username", "password"}:
            return self._wrong(400, "a login that is not a form of username and password")
        if self.login.get(form["username"]) != form["password"]:
            return 400, {"non_field_errors": ["Unable to log in with provided credentials."]}
        return 200, {"token": self.token}

    def _do_permission(self, call, phase):
        can, self.can = self.can, self.can_later or self.can
        if can.get("can"):
            self._allowed.add(int(phase))
        return 200, can

    def _do_competitions(self, call, participating_in=None, page="1"):
        if participating_in != "true":
            return self._wrong(400, "a list of competitions that are not the user's")
        rows = [
            {"id": number, "title": f"Competition {number}", **(self._phases(number) if self.phases_listed else {})}
            for number in self.competitions
        ]
        return 200, self._page(rows, int(page), 1, "competitions/?participating_in=true")

    def _do_competition(self, call, number):
        if int(number) not in self.competitions:
            return self._wrong(404, f"the unknown competition {number}")
        return 200, {"id": int(number), "title": f"Competition {number}", **self._phases(int(number))}

    def _do_dataset(self, call):
        kinds = {"type": str, "competition": int, "file_name": str, "request_sassy_file_name": str, "file_size": int}
        order = self._body(call, kinds)
        if order is None:
            return 400, {"detail": "wrong order"}
        if not self._allowed:
            return self._wrong(400, "a dataset before can_make_submission/ was asked")
        name = order["request_sassy_file_name"]
        if (
            order["type"] != "submission"
            or name != order["file_name"]
            or not re.fullmatch(r"[A-Za-z0-9_.-]+\.zip", name)
        ):
            return self._wrong(400, f"the dataset {order}")
        if order["competition"] not in self.competitions:
            return 400, {"competition": [f'Invalid pk "{order["competition"]}" - object does not exist.']}
        key, secret = f"{secrets.token_hex(4)}-{secrets.token_hex(6)}", secrets.token_hex(8)
        self.datasets[key] = Dataset(name, order["file_size"], order["competition"], secret)
        return 201, {"key": key, "sassy_url": f"{self.url}/storage/{key}?signature={secret}"}

    def _do_completed(self, call, key):
        dataset = self.datasets.get(key)
        if dataset is None or dataset.sha256 is None:
            return self._wrong(400, f"dataset {key} completed before its bytes were there")
        dataset.completed = True
        return 200, {"key": key}

    def _do_submit(self, call):
        order = self._body(call, {"phase": int, "data": str})
        if order is None:
            return 400, {"detail": "wrong order"}
        dataset, phase = self.datasets.get(order["data"]), order["phase"]
        if dataset is None or not dataset.completed:
            return self._wrong(400, f"a submission of the incomplete dataset {order['data']}")
        if phase not in self._allowed:
            return self._wrong(400, f"a submission to phase {phase} without can_make_submission/ before it")
        if phase not in self.competitions[dataset.competition]:
            self.violation(f"a dataset of competition {dataset.competition} in phase {phase}")
        self._allowed.discard(phase)
        if not self.can.get("can"):
            return 500, SERVER_ERROR
        whole = Task("whole", self.statuses, self.late, self.scores, self.reason, self.logs, self.page)
        parent = self._created(phase, dataset.name, Task(**{**vars(whole), "logs": {}}) if self.tasks else whole)
        for task in self.tasks:
            self.submissions[parent].children.append(self._created(phase, dataset.name, task, parent))
        return 201, {
            "id": parent,
            "phase": phase,
            "data": order["data"],
            "status": "Submitting",
            "status_details": None,
        }

    def _do_list(self, call, phase=None, page="1"):
        if phase is None or not phase.isdigit():
            return self._wrong(400, "a list of submissions without a phase")
        rows = [
            {"id": number, "filename": submission.name, "parent": submission.parent}
            for number, submission in reversed(self.submissions.items())
            if submission.phase == int(phase) and not self.unlisted
        ]
        return 200, self._page(rows, int(page), PAGE, f"submissions/?phase={phase}")

    def _do_submission(self, call, number):
        submission = self.submissions.get(int(number))
        if submission is None:
            return self._wrong(404, f"a poll of the unknown submission {number}")
        status, scores = submission.polls.pop(0) if len(submission.polls) > 1 else submission.polls[0]
        children = submission.children if submission.asked >= self.children_late else []
        submission.asked += 1
        return 200, {
            "id": int(number),
            "status": status,
            "status_details": submission.task.reason if status in ("Failed", "Cancelled") else None,
            "scores": scores,
            "parent": submission.parent,
            "has_children": bool(children),
            "children": [{"id": child} for child in children] if self.child_objects else children,
            "task": None if submission.children else {"id": 3, "name": submission.task.name},
        }

    def _do_details(self, call, number):
        if int(number) not in self.submissions:
            return self._wrong(404, f"details of the unknown submission {number}")
        names = self.submissions[int(number)].task.logs
        logs = [{"name": name, "data_file": f"{self.url}/logs/{number}/{name}?signature=s"} for name in names]
        return 200, {"logs": logs, "detailed_result": None}

    def _do_detail_result(self, call, number):
        if int(number) not in self.submissions:
            return self._wrong(404, f"detailed results of the unknown submission {number}")
        if self.submissions[int(number)].task.page is None:
            return 200, b""  # the framework renders null as an empty body
        return 200, json.dumps(f"{self.url}/pages/{number}?signature=p").encode()

    def _do_log(self, call, number, name, signature=None):
        logs = self.submissions[int(number)].task.logs
        if signature != "s" or name not in logs:
            return self._wrong(403, f"a log that was not offered: {call.path}")
        return 200, logs[name]

    def _do_page(self, call, number, signature=None):
        if signature != "p":
            return self._wrong(403, f"a page that was not offered: {call.path}")
        return 200, self.submissions[int(number)].task.page

    def _created(self, phase, name, task, parent=None):
        """A new submission, whose task says what it goes through. Returns its id."""
        polls = [(status, []) for status in task.statuses]
        if task.statuses[-1] == "Finished":
            has_scores = parent is not None or not self.tasks
            scores = task.scores if has_scores else []
            polls[-1:] = [("Finished", [])] * task.late
            if self.one_by_one:
                polls += [("Finished", scores[:count]) for count in range(1, len(scores))]
            polls.append(("Finished", scores))
        number = 4000 + len(self.submissions)
        self.submissions[number] = Submission(phase, name, polls, task, parent)
        return number

    def _phases(self, number):
        return {"phases": [{"id": phase, "name": f"Phase {phase}"} for phase in self.competitions[number]]}

    def _page(self, rows, page, size, address):
        """All rows, or a page of them. As behind a proxy, "next" names a host that the client cannot reach."""
        if not self.paged:
            return rows
        more = page * size < len(rows)
        following = f"http://django:8000/api/{address}&page={page + 1}" if more else None
        return {"count": len(rows), "next": following, "results": rows[(page - 1) * size : page * size]}

    def _body(self, call, fields):
        """The JSON of a call, or None where it does not have exactly these fields."""
        try:
            value = json.loads(call.body)
        except ValueError:
            value = None
        right = isinstance(value, dict) and {key: type(item) for key, item in value.items()} == fields
        if call.headers.get("content-type") != JSON or not right:
            self.violation(f"{call.method} {call.path} with {call.body[:200]!r} as {call.headers.get('content-type')}")
            return None
        return value

    def _wrong(self, status, text):
        self.violation(text)
        return status, {"detail": text}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self):
        # A small window, so that a slow storage is slow for the client too and not only behind the system's buffers.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        socketserver.TCPServer.server_bind(self)  # that of HTTPServer asks the name service
        self.server_name, self.server_port = self.server_address

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            self.codabench.violation(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        codabench = self.server.codabench
        parts = urlsplit(self.path)
        endpoint, groups = _route(self.command, parts.path)
        call = Call(endpoint, self.command, self.path, {key.lower(): value for key, value in self.headers.items()})
        codabench.calls.append(call)
        for text in _header_faults(self.headers, call, codabench.token):
            codabench.violation(f"{call.method} {call.path}: {text}")
        fault = codabench.next_fault(endpoint)
        length = int(call.headers.get("content-length", 0))
        wanted = length if fault is None or fault.after is None else min(length, fault.after)
        digest = self._read(call, wanted)
        if wanted < length:
            self._break_off()
            return
        call.finished = True
        if fault is None or fault.effect:
            answer = self._carry_out(call, groups, parts.query, digest)
        if fault is None:
            self._answer(*answer)
            return
        codabench.wait(fault.hang)
        if fault.status is None:
            self._break_off()
        else:
            self._answer(fault.status, fault.body, fault.headers, fault.phrase)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET

    def _carry_out(self, call, groups, query, digest):
        codabench = self.server.codabench
        if call.endpoint is None:
            codabench.violation(f"no such address: {call.method} {call.path}")
            return 404, {"detail": "Not found."}
        if call.endpoint not in UNSIGNED and call.headers.get("authorization") != f"Token {codabench.token}":
            return 403, {"detail": "Invalid token."}
        if call.endpoint != "storage":
            return codabench.do(call, groups, {key: values[0] for key, values in parse_qs(query).items()})
        dataset = codabench.datasets.get(groups[0])
        if dataset and query != f"signature={dataset.secret}":
            codabench.violation(f"another signature: {query}")
        return codabench.stored(groups[0], int(call.headers["content-length"]), digest)

    def _read(self, call, length):
        """Reads the body; that of the storage is not kept, because it may be large. Returns its SHA-256."""
        digest = hashlib.sha256()
        while length:
            data = self.rfile.read1(min(length, CHUNK))
            if not data:
                raise ConnectionAbortedError
            length -= len(data)
            digest.update(data)
            if call.endpoint != "storage":
                call.body += data
            elif self.server.codabench.speed:
                self.server.codabench.wait(len(data) / self.server.codabench.speed)
        return digest.hexdigest()

    def _answer(self, status, value, headers=None, phrase=None):
        body = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status, phrase)
        kind = {bytes: "application/octet-stream", str: HTML if value == SERVER_ERROR else "text/plain"}
        fields = {"Content-Type": kind.get(type(value), JSON), "Content-Length": len(body), **(headers or {})}
        for key, text in fields.items():
            self.send_header(key, str(text))
        self.end_headers()
        self.wfile.write(body)

    def _break_off(self):
        self.close_connection = True
        self.connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )  # what is unsent is lost


def _route(method, path):
    for (wanted, pattern), endpoint in ROUTES.items():
        match = re.fullmatch(pattern, path)
        if match and wanted == method:
            return endpoint, match.groups()
    return None, ()


def _header_faults(headers, call, token):
    """What is wrong with the headers of a call, as lines."""
    for name in ("Authorization", "Content-Type", "Content-Length"):
        if len(headers.get_all(name, [])) > 1:
            yield f"{name} twice"
    signed = headers.get("Authorization")
    if call.endpoint in UNSIGNED and signed is not None:
        yield "with an Authorization header"
    if call.endpoint not in UNSIGNED and not re.fullmatch(r"Token \S+", signed or ""):
        yield f"with the Authorization {signed!r}"
    if "cookie" in call.headers or (token in call.path):
        yield "with a cookie or with the token in its address"
    if "transfer-encoding" in call.headers:
        yield "in chunks"
    if call.method in ("POST", "PUT") and "content-length" not in call.headers:
        yield "without a Content-Length"
    if (call.method == "GET" or call.endpoint == "completed") and call.headers.get("content-length", "0") != "0":
        yield "with a body"
    if call.endpoint == "storage" and headers.get("Content-Type") != "application/zip":
        yield f"as {headers.get('Content-Type')!r}"
