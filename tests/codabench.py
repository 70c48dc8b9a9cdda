"""Codabench's REST API as far as handing in a submission needs it: strict, on this machine only, and failing on request.

Every call is noted in `calls`; whatever a well-behaved client would not do is noted in `violations`.
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
CHUNK = 1 << 16
UNSIGNED = ("login", "storage", "log")  # calls that must not carry the token
JSON = "application/json"
ROUTES = {
    ("POST", r"/api/api-token-auth/"): "login",
    ("GET", r"/api/can_make_submission/(\d+)/"): "leave",
    ("POST", r"/api/datasets/"): "dataset",
    ("PUT", r"/storage/([0-9a-f-]+)"): "storage",
    ("PUT", r"/api/datasets/completed/([0-9a-f-]+)/"): "completed",
    ("POST", r"/api/submissions/"): "submit",
    ("GET", r"/api/submissions/"): "list",
    ("GET", r"/api/submissions/(\d+)/"): "submission",
    ("GET", r"/api/submissions/(\d+)/get_details/"): "details",
    ("GET", r"/logs/(\d+)/(\w+)"): "log",
}


@dataclass
class Fault:
    """What a call gets instead of its answer.

    status: answer with it; None: no answer, the connection breaks off.
    body: bytes, text or a JSON value, with headers and the words beside the status.
    after: bytes of the body that are read before the connection breaks off; None: all of them.
    effect: the call does what it should, only its answer is not this.
    hang: seconds without a word before that.
    """

    status: int = None
    body: object = b""
    headers: dict = field(default_factory=dict)
    words: str = None
    after: int = None
    effect: bool = False
    hang: float = 0

    def __str__(self):
        return str(self.status or ("hang" if self.hang else "drop"))


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
    secret: str
    sha256: str = None
    completed: bool = False


@dataclass
class Submission:
    """A submission and what the coming looks at it will see."""

    phase: int
    name: str
    looks: list


class Codabench:
    """The server. Set the attributes before the calls come; `fail` lets calls go wrong.

    statuses, late, scores, details: what a new submission goes through, looks between its end and its scores, its
        scores and status_details.
    can: the answer to can_make_submission/. logs: name → text. login: name → password.
    sha256: that the zip must have. paged: the list comes as {"count", "results"}. unlisted: the list stays empty.
    speed: bytes per second that the storage takes.
    """

    def __init__(self):
        self.token, self.login = TOKEN, {"me": "pä&ss=w?"}
        self.can = {"can": True, "reason": None}
        self.statuses = ["Submitted", "Preparing", "Running", "Scoring", "Finished"]
        self.late, self.scores, self.details = 0, [{"column_key": "accuracy", "score": "0.9125000000"}], None
        self.logs, self.sha256, self.paged, self.unlisted, self.speed = {}, None, False, False, None
        self.calls, self.violations, self.datasets, self.submissions = [], [], {}, {}
        self._leave, self._faults, self._lock, self._closing = set(), {}, threading.RLock(), threading.Event()
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

    def fail(self, endpoint, fault, times=1):
        """Lets the coming calls of an endpoint go wrong; `times` may be math.inf."""
        repeated = itertools.repeat(fault) if times == math.inf else itertools.repeat(fault, times)
        self._faults[endpoint] = itertools.chain(self._faults.get(endpoint, ()), repeated)

    def mend(self):
        """Ends all faults."""
        self._faults.clear()

    def count(self, endpoint):
        """How many calls of an endpoint have come in."""
        return sum(call.endpoint == endpoint for call in self.calls)

    def endpoints(self):
        """The endpoints in the order of the calls."""
        return [call.endpoint for call in self.calls]

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
        if call.headers.get("content-type") != "application/x-www-form-urlencoded" or set(form) != {"username", "password"}:
            return self._wrong(400, "a login that is no form of username and password")
        if self.login.get(form["username"]) != form["password"]:
            return 400, {"non_field_errors": ["Unable to log in with provided credentials."]}
        return 200, {"token": self.token}

    def _do_leave(self, call, phase):
        if self.can.get("can"):
            self._leave.add(int(phase))
        return 200, self.can

    def _do_dataset(self, call):
        order = self._body(call, {"type": str, "request_sassy_file_name": str, "file_size": int})
        if order is None:
            return 400, {"detail": "wrong order"}
        if not self._leave:
            return self._wrong(400, "a dataset before can_make_submission/ was asked")
        if order["type"] != "submission" or not re.fullmatch(r"[^/\\]+\.zip", order["request_sassy_file_name"]):
            return self._wrong(400, f"the dataset {order}")
        key, secret = f"{secrets.token_hex(4)}-{secrets.token_hex(6)}", secrets.token_hex(8)
        self.datasets[key] = Dataset(order["request_sassy_file_name"], order["file_size"], secret)
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
        dataset = self.datasets.get(order["data"])
        if dataset is None or not dataset.completed:
            return self._wrong(400, f"a submission of the incomplete dataset {order['data']}")
        if order["phase"] not in self._leave:
            return self._wrong(400, f"a submission to phase {order['phase']} without can_make_submission/ before it")
        self._leave.discard(order["phase"])
        number = 4000 + len(self.submissions)
        self.submissions[number] = Submission(order["phase"], dataset.name, self._looks())
        return 201, {"id": number, **self._view(number, self.submissions[number].looks[0]), "phase": order["phase"]}

    def _do_list(self, call, phase=None):
        if phase is None or not phase.isdigit():
            return self._wrong(400, "a list of submissions without a phase")
        rows = [
            {"id": number, "filename": submission.name, "status": submission.looks[0][0]}
            for number, submission in reversed(self.submissions.items())
            if submission.phase == int(phase) and not self.unlisted
        ]
        return 200, {"count": len(rows), "next": None, "results": rows} if self.paged else rows

    def _do_submission(self, call, number):
        submission = self.submissions.get(int(number))
        if submission is None:
            return self._wrong(404, f"a look at the unknown submission {number}")
        look = submission.looks.pop(0) if len(submission.looks) > 1 else submission.looks[0]
        return 200, {"id": int(number), **self._view(number, look)}

    def _do_details(self, call, number):
        if int(number) not in self.submissions:
            return self._wrong(404, f"details of the unknown submission {number}")
        return 200, {"logs": [{"name": name, "data_file": f"{self.url}/logs/{number}/{name}?signature=s"} for name in self.logs]}

    def _do_log(self, call, number, name, signature=None):
        if signature != "s" or name not in self.logs:
            return self._wrong(403, f"a log that was not offered: {call.path}")
        return 200, self.logs[name]

    def _looks(self):
        looks = [(status, []) for status in self.statuses]
        if self.statuses[-1] == "Finished":
            looks[-1:] = [("Finished", [])] * self.late + [("Finished", self.scores)]
        return looks

    def _view(self, number, look):
        status, scores = look
        return {"status": status, "status_details": self.details if status in ("Failed", "Cancelled") else None, "scores": scores}

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
            self._answer(fault.status, fault.body, fault.headers, fault.words)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET

    def _carry_out(self, call, groups, query, digest):
        codabench = self.server.codabench
        if call.endpoint is None:
            codabench.violation(f"no such address: {call.method} {call.path}")
            return 404, {"detail": "Not found."}
        if call.endpoint not in UNSIGNED and call.headers.get("authorization") != f"Token {codabench.token}":
            return 401, {"detail": "Invalid token."}
        if call.endpoint != "storage":
            return codabench.do(call, groups, {key: values[0] for key, values in parse_qs(query).items()})
        dataset = codabench.datasets.get(groups[0])
        if dataset and query != f"signature={dataset.secret}":
            codabench.violation(f"another signature: {query}")
        return codabench.stored(groups[0], int(call.headers["content-length"]), digest)

    def _read(self, call, length):
        """Reads the body; that of the storage is not kept, for it may be large. Returns its SHA-256."""
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

    def _answer(self, status, value, headers=None, words=None):
        body = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status, words)
        kind = "application/octet-stream" if isinstance(value, bytes) else "text/plain" if isinstance(value, str) else JSON
        for key, text in {"Content-Type": kind, "Content-Length": len(body), **(headers or {})}.items():
            self.send_header(key, str(text))
        self.end_headers()
        self.wfile.write(body)

    def _break_off(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # what is unsent is lost


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
