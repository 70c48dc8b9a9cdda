"""A server that sends the token or the password back: neither is printed nor written. `upload` and `login` check it."""

import json
import math

import pytest

pytestmark = pytest.mark.unit

TOKEN = "fedcba9876543210fedcba9876543210fedc0bad"
ECHO = f"you sent Token {TOKEN}!"
LOG = "prediction_ingestion_stderr"
ENDPOINTS = ("permission", "competitions", "dataset", "storage", "completed", "submit", "submission")


@pytest.fixture(autouse=True)
def known_token(server, monkeypatch):
    server.token = TOKEN
    monkeypatch.setenv("CODABENCH_TOKEN", TOKEN)


def escaped(value):
    """JSON in which every letter of the token is an escape sequence."""
    return json.dumps(value).replace(TOKEN, "".join(f"\\u{ord(letter):04x}" for letter in TOKEN))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 403, "body": {"detail": ECHO}},
        {"status": 409, "body": {TOKEN: [ECHO]}},
        {"status": 400, "body": ECHO},
        {"status": 404, "body": [ECHO]},
        {"status": 409, "body": escaped({"detail": ECHO})},
        {"status": 403, "phrase": ECHO},
        {"status": 503, "body": {"error": ECHO}},
        {"status": 302, "headers": {"Location": f"http://{TOKEN}@127.0.0.1:1/{TOKEN}"}},
        {"status": 200, "body": ECHO, "effect": True},
    ],
    ids=["detail", "key", "text", "list", "escaped", "phrase", "again", "redirect", "no JSON"],
)
def test_the_token_in_an_error(server, upload, endpoint, fault):
    server.fail(endpoint, 7, **fault)
    upload("--wait", "0")


@pytest.mark.parametrize("body", [{"detail": "x" * 480 + TOKEN}, "x" * 180 + TOKEN], ids=["JSON", "text"])
def test_the_token_where_an_error_is_cut(server, upload, body):
    server.fail("permission", status=409, body=body)
    assert len(upload().line) < 600


def test_the_token_in_the_permission(server, upload):
    server.can = {"can": False, "reason": ECHO}
    assert "you sent Token ***!" in upload().line


def test_the_token_in_a_list_of_competitions(server, upload):
    server.fail("competitions", math.inf, status=200, body={"results": [{"id": TOKEN}], "next": f"/?x={TOKEN}"})
    assert upload().code == 1


@pytest.mark.parametrize(
    "change",
    [
        {"reason": ECHO},
        {"logs": {LOG: ECHO}},
        {"logs": {TOKEN: "x"}},
        {"logs": {}, "page": f"<p>{ECHO}</p>"},
        {"logs": {}, "page": "<p>" + "".join(f"&#{ord(letter)};" for letter in TOKEN) + "&#27;[2J</p>"},
        {"statuses": [TOKEN, "Failed"]},
        {"statuses": ["Finished"], "scores": [{"column_key": TOKEN, "score": "1"}]},
    ],
    ids=["reason", "log", "log name", "page", "page in entities", "status", "score"],
)
def test_the_token_in_a_submission(failing, upload, change):
    vars(failing).update(change)
    assert upload().code == (0 if "scores" in change else 1)


@pytest.mark.parametrize("field", ["status", "status_details", "task"])
def test_the_token_and_control_characters_behind_json_escapes(server, upload, make_task, field):
    server.tasks = [make_task("only")]
    state = {"status": "Failed", "status_details": "", "task": {"name": ""}}
    state[field] = {"name": f"\x1b[2J{ECHO}"} if field == "task" else f"\x1b[2J{ECHO}"
    server.fail("submission", status=200, body=escaped({**state, "children": [4001]} if field == "task" else state))
    server.fail("submission", status=200, body=escaped(state))
    upload("--wait", "0")


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("details", {"status": 403, "body": {"detail": ECHO}}),
        ("detail_result", {"status": 403, "body": {"error_msg": ECHO}}),
        ("submit", {"status": 201, "body": {"id": TOKEN}, "effect": True}),
    ],
)
def test_the_token_in_an_answer_about_a_failed_submission(failing, upload, endpoint, fault):
    failing.logs = {}
    failing.fail(endpoint, **fault)
    upload()


@pytest.mark.parametrize(
    "body",
    [{"detail": "wrong: some-password"}, "wrong: some-password", {"password": ["some-password"]}],
    ids=str,
)
def test_the_password_in_an_error(server, login, body):
    server.fail("login", status=400, body=body)
    assert login(password="some-password").code == 1
