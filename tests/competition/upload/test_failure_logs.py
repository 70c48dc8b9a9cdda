"""Why a submission failed: the server's reason, the end of its logs, and the page of its details."""

import math

import pytest

pytestmark = pytest.mark.unit

LOG = "prediction_ingestion_stderr"
REASON = "error: submission 4000 failed: Ingestion program failed"


def test_the_end_of_each_log_in_the_order_of_interest(failing, upload):
    done = upload()
    assert done.code == 1
    assert done.error.splitlines() == [
        REASON,
        f"the end of {LOG}:",
        *(f"  line {number}" for number in range(85, 100)),
        "the end of scoring_stdout:",
        "  scored nothing",
    ]
    assert failing.count("submit") == 1
    assert failing.count("detail_result") == 1  # there is none


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_an_end_without_reason_and_without_logs_names_the_local_command(server, zip_path, upload, status):
    server.statuses = [status]
    done = upload()
    assert done.code == 1
    first, second = done.error.splitlines()
    assert first == f"error: submission 4000 {status.lower()}: the server gives no reason"
    assert "the server sent no log" in second
    assert f"python grade_submission.py '{zip_path}' --data FOLDER" in second


def test_hidden_logs(failing, upload):
    failing.fail("details", status=403, body={"detail": "Output is hidden"})
    done = upload()
    assert done.code == 1
    first, second = done.error.splitlines()
    assert first == REASON
    for words in ("the server sent no log", "403: Output is hidden", "grade_submission.py"):
        assert words in second


@pytest.mark.parametrize("fault", [{"status": 403, "body": "<Error>"}, {"status": 404}, {}], ids=str)
def test_a_log_that_cannot_be_read(failing, upload, fault):
    failing.fail("log", **fault)
    done = upload()
    assert done.code == 1
    assert done.error.splitlines()[0] == REASON
    assert "scored nothing" in done.error
    assert "the server sent no log" not in done.error


def test_no_log_can_be_read(failing, upload):
    failing.fail("log", math.inf, status=404)
    done = upload()
    assert done.code == 1
    assert done.error.splitlines()[0] == REASON
    assert "the server sent no log" in done.error


def test_a_log_in_utf8(failing, upload):
    failing.logs = {LOG: "nicht gefunden: Blätter → 8\n"}
    assert "nicht gefunden: Blätter → 8" in upload().error


@pytest.mark.parametrize("body", [b"\xff\xfe\x00bad", b"", b"\n\n", b"\x1b[2Jcleared"])
def test_a_log_of_other_bytes(failing, upload, body):
    failing.fail("log", 2, status=200, body=body)
    done = upload()
    assert done.code == 1
    assert "Ingestion program failed" in done.error


@pytest.mark.parametrize(
    "details",
    [
        [],
        {},
        {"logs": None},
        {"logs": {}},
        {"logs": 5},
        {"logs": ["x"]},
        {"logs": [{"name": LOG}]},
        {"logs": [{"name": LOG, "data_file": None}]},
        {"logs": [{"name": [LOG], "data_file": "http://127.0.0.1/"}]},
    ],
    ids=str,
)
def test_details_of_another_shape_do_not_hide_the_reason(failing, upload, details):
    failing.fail("details", status=200, body=details)
    done = upload()
    assert done.code == 1
    assert done.error.startswith(f"{REASON}\n")
    assert "the server sent no log" in done.error


# --- the page of the details

PAGE = """<!DOCTYPE html>
<html><head><title>Detailed results</title><style>p { margin: 0; }</style></head>
<body><h1>Detailed results</h1>
<p class="refusal">Not scored: predict &amp; return failed.</p>
<table><tr><td>model.py</td><td>✗ fail</td></tr>
</table></body></html>
"""


def test_the_page_of_the_details_replaces_missing_logs(failing, upload):
    failing.logs, failing.page = {}, PAGE
    done = upload()
    assert done.code == 1
    assert done.error.splitlines()[:5] == [
        REASON,
        "the start of the detailed results:",
        "  Detailed results",
        "  Not scored: predict & return failed.",
        "  model.py ✗ fail",
    ]
    assert "the server sent no log" in done.error
    assert "signature" not in done.error


def test_the_page_of_the_details_follows_the_logs(failing, upload):
    """The logs of a submission that was refused may hold nothing but what its libraries print."""
    failing.logs, failing.page = {LOG: "2026-03-01: I tensorflow/core: to enable AVX2\n"}, PAGE
    lines = upload().error.splitlines()
    assert lines[:3] == [REASON, f"the end of {LOG}:", "  2026-03-01: I tensorflow/core: to enable AVX2"]
    assert lines[3] == "the start of the detailed results:"
    assert "  Not scored: predict & return failed." in lines
    assert "the server sent no log" not in "".join(lines)


def test_a_long_page_is_cut(failing, upload):
    failing.logs, failing.page = {}, "\n".join(f"<p>line {number}</p>" for number in range(100))
    lines = upload().error.splitlines()
    assert lines[2:-1] == [f"  line {number}" for number in range(15)]


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("detail_result", {"status": 403, "body": {"error_msg": "hidden"}}),
        ("detail_result", {"status": 404, "body": {"error_msg": "disabled"}}),
        ("detail_result", {"status": 200, "body": "<html>"}),
        ("detail_result", {"status": 200, "body": {"url": "x"}}),
        ("detail_result", {"status": 200, "body": b'"http://["'}),
        ("detail_result", {"status": 200, "body": b'"nowhere"'}),
        ("detail_result", {"status": 200, "body": b'"http://www..x.org/page"'}),
        ("detail_result", {}),
        ("page", {"status": 404}),
        ("page", {"status": 200, "body": b"\xff\xfe"}),
        ("page", {}),
    ],
    ids=str,
)
def test_a_page_that_cannot_be_read(failing, upload, endpoint, fault):
    failing.logs, failing.page = {}, PAGE
    failing.fail(endpoint, math.inf, **fault)
    done = upload()
    assert done.code == 1
    assert done.error.splitlines()[0] == REASON
    assert "grade_submission.py" in done.error
