"""Answers of another shape than Codabench's: one clear line, and nothing is sent twice."""

import pytest

from competition.upload.answers import visible_lines

pytestmark = pytest.mark.unit

SHAPES = ["<html>a page</html>", "", "null", "5", "[]", "{}", '{"detail": "x"}', b"\xff\xfe", "{" * 5000, "[" * 900]
NO_REDIRECT = ("permission", "competitions", "dataset", "completed", "submit", "submission")


def short(value):
    return str(value)[:20]


@pytest.mark.parametrize("endpoint", ["permission", "competitions", "dataset", "completed", "submission"])
@pytest.mark.parametrize("body", SHAPES, ids=short)
def test_an_answer_of_another_shape(server, upload, endpoint, body):
    server.fail(endpoint, status=200, body=body)
    done = upload("--wait", "0")
    assert done.code == 1
    assert len(done.line) < 400
    server.fix()
    assert upload().code == 0
    assert server.count("submit") == len(server.submissions) == 1


@pytest.mark.parametrize("body", [*SHAPES, '{"id": "abc"}', '{"id": null}', '{"id": [1]}', '{"id": 1e999}'], ids=short)
def test_a_created_submission_whose_answer_has_another_shape(server, upload, body):
    """It was created: the server said so. It must not be forgotten, or the same command would send it twice."""
    server.fail("submit", status=201, body=body, effect=True)
    assert upload().code in (0, 1, 3)
    server.fix()
    assert upload().code == 0
    assert server.count("submit") == len(server.submissions) == 1


@pytest.mark.parametrize("url", [5, "http://[", {}, "nowhere"], ids=str)
def test_a_place_that_is_not_an_address(server, upload, url):
    server.fail("dataset", status=201, body={"key": "k", "sassy_url": url})
    done = upload()
    assert done.code in (1, 3)
    assert done.line
    assert server.count("submit") == 0


@pytest.mark.parametrize("missing", ["status", "scores", "children", "task", "has_children", "status_details"])
def test_a_submission_that_lacks_a_field(server, upload, missing):
    """Only the status is indispensable, and the scores in the end."""
    body = {"id": 4000, "status": "Running", "scores": [], "children": [], "task": None, "has_children": False}
    server.fail("submission", 2, status=200, body={key: value for key, value in body.items() if key != missing})
    done = upload()
    assert done.code == (1 if missing == "status" else 0)
    assert missing != "status" or "has no status" in done.line
    assert server.count("submit") == 1


@pytest.mark.parametrize(
    ("scores", "code"),
    [
        ([{"column_key": "accuracy", "score": "1"}], 0),
        ([{"column_key": "x", "score": 0.5}], 0),
        ([{"column_key": "accuracy", "score": "abc"}], 1),
        ([{"column_key": "accuracy", "score": [1]}], 1),
        ([{"column_key": "accuracy"}], 1),
        ([{"score": "1"}], 1),
        ([{"column_key": 5, "score": "1"}], 1),
        (["accuracy"], 1),
        ({"accuracy": "1"}, 1),
        ("0.5", 1),
        (5, 1),
    ],
    ids=str,
)
def test_scores_of_any_name_and_of_other_shapes(server, upload, scores, code):
    server.scores = scores
    done = upload("--wait", "60")
    assert done.code == code
    assert code or done.out.splitlines()[-1].split()[0] == scores[0]["column_key"]
    assert server.count("submit") == 1


@pytest.mark.parametrize("children", [5, "4001", {"id": 4001}, ["abc"], [None], [[1]], [{}], [{"id": "x"}]], ids=str)
def test_children_of_another_shape(server, upload, children):
    server.fail("submission", status=200, body={"status": "Running", "has_children": True, "children": children})
    done = upload()
    assert done.code == 1
    assert "--server" in done.line
    assert upload().code == 0
    assert server.count("submit") == 1


# --- redirects are not followed


@pytest.mark.parametrize("endpoint", NO_REDIRECT)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect(server, upload, endpoint, status):
    location = f"{server.url.replace('127.0.0.1', 'localhost')}/api/submissions/"
    server.fail(endpoint, status=status, headers={"Location": location})
    done = upload()
    assert done.code == 1
    assert "localhost" in done.line
    assert "--server" in done.line
    assert server.count(endpoint) == 1


@pytest.mark.parametrize("location", ["/accounts/login/", "", "//"])
def test_a_redirect_to_nowhere(server, upload, location):
    server.fail("permission", status=302, headers={"Location": location})
    done = upload()
    assert done.code == 1
    assert "to ;" not in done.line


def test_a_redirected_upload(server, upload):
    server.fail("storage", status=307, headers={"Location": f"{server.url}/storage/x?signature=s"})
    done = upload()
    assert done.code == 1
    assert "signature" not in done.line
    assert server.count("storage") == 1
    assert server.count("completed") == 0


@pytest.mark.parametrize("status", [300, 302, 304])
def test_an_upload_that_is_neither_done_nor_redirected(server, upload, status):
    server.fail("storage", status=status)
    assert upload().code == 1
    assert server.count("completed") == 0


# --- pages


@pytest.mark.parametrize(
    ("page", "lines"),
    [
        ("", []),
        ("plain", ["plain"]),
        ("<p>one</p>\n<p>two &amp; three</p>", ["one", "two & three"]),
        ("<head><title>t</title><style>p {}</style></head><h1>Results</h1>", ["Results"]),
        ("<body><style>p {}</style><script>x()</script>seen<svg><text>not</text></svg></body>", ["seen"]),
        ("<tr><td>size</td><td>✗ fail</td><td>too large<br>→ shrink</td></tr>", ["size ✗ fail too large → shrink"]),
        ("</style></head>seen", ["seen"]),
    ],
)
def test_the_visible_lines_of_a_page(page, lines):
    assert visible_lines(page) == lines


@pytest.mark.parametrize("rest", ["<![/doctype", "<!DOCTYPE [<!ELEMENT", "<", "&", "<p title='"])
def test_a_malformed_page_shows_what_comes_before(rest):
    assert visible_lines(f"before\n{rest}")[0] == "before"
