"""Calls a server until it answers, and says in one line why it did not."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import requests

from competition.upload.answers import host, one_line, redacted
from competition.upload.errors import NoAnswer, Refused

TRIES = 6
PAUSE = 1.0  # seconds before the second try; doubles with each further one
LONGEST_PAUSE = 300.0  # seconds that a server may ask for
REASON_LENGTH = 500
RATE_LIMITED = 429
SERVER_ERROR = 500
# Statuses below 500 after which another try may succeed. All from 500 on are such, also those of proxies (520, 524).
TRANSIENT = (408, 425, RATE_LIMITED)
ADVICE = {
    401: "; make a new token with --login",
    404: "; check --server and --phase",
    413: "; build a smaller zip, or ask the organisers for the limit",
}


@dataclass
class _Failure:
    """A failure that another try may not meet.

    status: the HTTP status, None if no answer came. pause: seconds that the server asks for, None if it does not.
    """

    reason: str
    status: int | None = None
    pause: float | None = None


def answered(
    call: Callable[[], requests.Response], what: str, repeatable: bool = True, secret: str = ""
) -> requests.Response:
    """Makes a call until it succeeds. Failures that may pass are tried again after pauses that double.

    Args:
        call: makes the call once.
        what: the name of the call, for messages.
        repeatable: False for a call that must not take effect twice. It is tried again only after status 429, which
            says that it had no effect.
        secret: is replaced in every message.

    Raises:
        Refused: an answer that will not change.
        NoAnswer: no answer, or a transient failure each time.
    """
    attempt = 1
    while True:
        result = _once(call, what, secret)
        if not isinstance(result, _Failure):
            return result
        if attempt == TRIES or not (repeatable or result.status == RATE_LIMITED):
            raise NoAnswer(f"{what}: {result.reason}", result.status)
        pause = PAUSE * 2 ** (attempt - 1) if result.pause is None else result.pause
        print(f"{what}: {result.reason}; trying again in {pause:.0f} s", file=sys.stderr)
        time.sleep(pause)
        attempt += 1


def _once(call: Callable[[], requests.Response], what: str, secret: str) -> requests.Response | _Failure:
    try:
        answer = call()
    except (requests.RequestException, ValueError) as error:
        if isinstance(error, ValueError):
            raise Refused(f"{what}: the address is not valid; check --server") from error
        return _Failure(_network_reason(error))
    if answer.is_redirect:
        place = host(answer.headers["Location"]) or "another of its pages"
        raise Refused(redacted(f"{what}: the server redirects to {place}; check --server", secret))
    if answer.status_code < 300:
        return answer
    reason = _reason(answer, secret)
    text = f"the server answered {answer.status_code}: {reason}"
    if answer.status_code < SERVER_ERROR and answer.status_code not in TRANSIENT:
        raise Refused(f"{what}: {text}{_advice(answer.status_code, reason)}")
    return _Failure(text, answer.status_code, _requested_pause(answer))


def _network_reason(error: requests.RequestException) -> str:
    """Why a connection failed. The error's own text is not used: its address may hold a signature."""
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not accepted"
    return "the connection was refused or broken off"


def _reason(answer: requests.Response, secret: str) -> str:
    """The server's own words as one line."""
    text = redacted(answer.text, secret)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = "" if "html" in answer.headers.get("Content-Type", "") else text[:200]
    if isinstance(value, dict):
        named = next((value[key] for key in ("detail", "error", "error_msg") if value.get(key)), None)
        value = named or "; ".join(f"{key}: {text}" for key, text in value.items())
    return redacted(one_line(value) or answer.reason or "no reason", secret)[:REASON_LENGTH]


def _advice(status: int, reason: str) -> str:
    if status == 403 and "invalid token" in reason.lower():  # Codabench answers 403, not 401
        status = 401
    return ADVICE.get(status, "")


def _requested_pause(answer: requests.Response) -> float | None:
    requested = answer.headers.get("Retry-After", "")
    return min(float(requested), LONGEST_PAUSE) if requested.isdecimal() else None
