"""Codabench's REST API. The token is sent in one header, to one server, and is never printed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

import requests
from urllib3.exceptions import LocationParseError

from common.errors import UserError
from common.progress import progress
from competition.upload.answers import field, host, items, parsed, query, redacted
from competition.upload.errors import Unclear
from competition.upload.retries import answered

TIMEOUT = (10, 60)  # seconds to connect, and without a byte
STALLED = (60, 60)  # while a body is sent, the first one counts
PORTS = {"https": 443, "http": 80}  # that an address need not name
PAGES = 200  # of one list, at most


class Server:
    """A Codabench server and the token for it.

    Args:
        url: the server's address; https, except for this machine.
        token: sent with every call below /api/, and with no other.

    Raises:
        UserError: an address that the token must not be sent to.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url, self._token = checked_url(url), token
        self.session = requests.Session()

    def ask(
        self, method: str, path: str, repeatable: bool = True, kinds: tuple[type, ...] = (dict, list), **body: Any
    ) -> Any:
        """Makes one call of the API, with retries.

        Args:
            method, path: of the call; the path is below /api/.
            repeatable: see `retries.answered`.
            kinds: the types of JSON value that are accepted.
            **body: for `requests.request`.

        Returns:
            The parsed JSON, with the token redacted.

        Raises:
            Refused: the server says no. NoAnswer: it could not be reached, or failed each time.
        """

        def call() -> requests.Response:
            url = f"{self.url}/api/{path}"
            return self.session.request(method, url, auth=self._sign, timeout=TIMEOUT, allow_redirects=False, **body)

        answer = answered(call, f"{method} {path}", repeatable, self._token)
        return parsed(answer.text, path, self._token, kinds)

    def rows(self, path: str, **parameters: str | int) -> Iterator[dict]:
        """Yields the rows of a list, which the server sends whole or in pages.

        Only the query of a page's "next" address is used, so the token stays with this server.
        """
        for _ in range(PAGES):
            answer = self.ask("GET", path, params=parameters)
            rows = answer.get("results") if isinstance(answer, dict) else answer
            yield from (row for row in items(rows, f"list of {path.strip('/')}") if isinstance(row, dict))
            parameters = dict(parse_qsl(query(answer.get("next")))) if isinstance(answer, dict) else {}
            if not parameters:
                return

    def put(self, url: str, path: Path) -> None:
        """Sends a file to a presigned address, streamed from the disk, with a progress bar. The token is not sent."""
        headers = {"Content-Type": "application/zip"}
        if host(url).endswith(".blob.core.windows.net"):
            headers["x-ms-blob-type"] = "BlockBlob"

        def call() -> requests.Response:
            with open(path, "rb") as file, _ProgressFile(file, path.stat().st_size) as body:
                return self.session.put(
                    url, data=body, headers=headers, auth=_unsigned, timeout=STALLED, allow_redirects=False
                )

        answered(call, "the upload", secret=self._token)

    def text(self, url: str) -> str:
        """The text behind a presigned address, or "" if it cannot be read."""
        try:
            answer = self.session.get(url, auth=_unsigned, timeout=TIMEOUT, allow_redirects=False)
        except (requests.RequestException, LocationParseError):  # the latter of an address without a proper host
            return ""
        return self.redacted(answer.content.decode("utf-8", "replace")) if answer.status_code == 200 else ""

    def redacted(self, text: str) -> str:
        """A server's text without the token and without control characters."""
        return redacted(text, self._token)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Token {self._token}"
        return request


def request_token(url: str, username: str, password: str) -> str:
    """Exchanges a name and a password for a token.

    Raises:
        Refused, NoAnswer: see `Server.ask`.
    """
    address = f"{checked_url(url)}/api/api-token-auth/"
    form = {"username": username, "password": password}

    def call() -> requests.Response:
        return requests.post(address, data=form, auth=_unsigned, timeout=TIMEOUT, allow_redirects=False)

    answer = answered(call, "the login", secret=password)
    token = field(parsed(answer.text, "api-token-auth/"), "token", str)
    if not is_token(token):
        raise Unclear("api-token-auth/: the answer holds no valid token; check --server")
    return token


def checked_url(url: str) -> str:
    """The server's address: scheme and host in lower case, without the default port, /api and a trailing slash.

    Raises:
        UserError: an address that a token must not be sent to.
    """
    scheme, name = url.partition(":")[0].lower(), host(url)
    try:
        port = urlsplit(url).port if name else None
    except ValueError:
        name = ""
    if scheme not in ("http", "https") or not name:
        raise UserError(f"--server must be an address such as https://www.codabench.org, got {url}")
    if scheme == "http" and name not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(f"--server must start with https, or the token would be sent unencrypted; got {url}")
    name = f"[{name}]" if ":" in name else name
    name += f":{port}" if port not in (None, PORTS[scheme]) else ""
    return f"{scheme}://{name}{urlsplit(url).path.rstrip('/').removesuffix('/api')}"


def is_token(text: str) -> bool:
    """Whether a text can be sent in a header as a token."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Replaces the login from a .netrc file that `requests` would add by itself."""
    return request


class _ProgressFile:
    """A file that shows how much of it has been read, how fast, and the time left."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def __enter__(self) -> "_ProgressFile":
        self._bar = progress(desc="uploading", total=self._size, unit="B", unit_scale=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        """Reads at most `size` bytes."""
        data = self._file.read(size)
        self._bar.update(len(data))
        return data
