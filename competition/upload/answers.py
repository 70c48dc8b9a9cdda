"""Reads what a server sent: JSON of an expected shape, and text without secrets or terminal control characters."""

import contextlib
import json
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

from competition.upload.errors import Unclear

REDACTED = "***"
INVISIBLE = ("head", "script", "style", "svg")  # elements of a page whose text is not shown


def redacted(text: str, secret: str) -> str:
    """A server's text without the secret and without control characters, which a terminal would obey."""
    text = text.replace(secret, REDACTED) if secret else text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text.replace("\r\n", "\n"))


def one_line(value: object) -> str:
    """The text of a value with every run of white space as one space."""
    return " ".join(str(value).split())


def parsed(text: str, path: str, secret: str = "", kinds: tuple[type, ...] = (dict, list)) -> Any:
    """The JSON value of an answer, with `redacted` applied to every text in it.

    Args:
        text: the body of the answer.
        path: of the call, for the message.
        secret: is replaced in the value, also where JSON escapes hide it.
        kinds: the types that are accepted.

    Raises:
        Unclear: not JSON, or of another type.
    """
    try:
        value = _redacted_value(json.loads(text), secret)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kinds):
        raise Unclear(f"{path}: the answer is not Codabench's; check --server")
    return value


def _redacted_value(value: Any, secret: str) -> Any:
    if isinstance(value, str):
        return redacted(value, secret)
    if isinstance(value, list):
        return [_redacted_value(item, secret) for item in value]
    if isinstance(value, dict):
        return {redacted(key, secret): _redacted_value(item, secret) for key, item in value.items()}
    return value


def field(value: Any, name: str, kind: type = object) -> Any:
    """A field of a JSON object. Raises `Unclear` if it is missing, null or of another type."""
    if not isinstance(value, dict) or value.get(name) is None or not isinstance(value[name], kind):
        raise Unclear(f"the server's answer has no {name}; check --server")
    return value[name]


def number(value: Any, name: str, kind: type = int) -> Any:
    """A field of a JSON object as an int or a float. Raises `Unclear` if it is not a number."""
    try:
        return kind(field(value, name))
    except (TypeError, ValueError, OverflowError) as error:
        raise Unclear(f"the server's answer has no number as {name}; check --server") from error


def items(value: Any, name: str) -> list:
    """A JSON list. Raises `Unclear` if it is something else."""
    if not isinstance(value, list):
        raise Unclear(f"the server's answer has no {name}; check --server")
    return value


def ids(value: Any, name: str) -> list[int]:
    """The ids of a list that holds ids or objects with an id. Raises `Unclear` for anything else."""
    return [number(item if isinstance(item, dict) else {"id": item}, "id") for item in items(value, name)]


def host(url: str) -> str:
    """The host of an address in lower case, or ""."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def query(url: object) -> str:
    """The query of an address, or ""."""
    try:
        return urlsplit(url).query if isinstance(url, str) else ""
    except ValueError:
        return ""


def visible_lines(page: str) -> list[str]:
    """The lines of text that an HTML page shows, without tags and style sheets."""
    reader = _VisibleText()
    with contextlib.suppress(AssertionError):  # which html.parser raises for some malformed declarations
        reader.feed(page)
        reader.close()
    return [line for line in map(one_line, "".join(reader.parts).splitlines()) if line]


class _VisibleText(HTMLParser):
    """Collects the text of a page outside the elements in `INVISIBLE`."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in INVISIBLE
        self.parts.append(" " if tag in ("td", "th", "b", "span", "br") else "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in INVISIBLE))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)
