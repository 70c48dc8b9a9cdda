"""Files of the prediction stage that are not what they should be: the page stays whole, and nothing is unpickled."""

import contextlib
import io
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import load_module

pytestmark = pytest.mark.unit

stages = load_module(Path(__file__).with_name("stages.py"), "stages")
Submitted, lay_out, synthetic = stages.Submitted, stages.lay_out, stages.synthetic


def one_check(**changes):
    return json.dumps({"checks": [{"name": "n", "passed": True, "reason": "", "fix": "", **changes}], "used": {}})


def used(text):
    return one_check().replace('"used": {}', '"used": {"images": 10, "seconds": %s}' % text)  # noqa: UP031


BAD_CHECKS = {
    "huge": '{"checks": [' + " " * 2_000_000 + '], "used": {}}',
    "empty": "",
    "no JSON": "checks: none",
    "deeply nested": "[" * 200_000,
    "deeply nested, closed": "[" * 5_000 + "]" * 5_000,
    "deeply nested name": '{"checks": [{"name": '
    + "[" * 900
    + "]" * 900
    + ', "passed": true, "reason": "", "fix": ""}], "used": {}}',
    "a number": "3",
    "null": "null",
    "a list": "[]",
    "no used": '{"checks": []}',
    "no checks": '{"used": {}}',
    "checks are a text": '{"checks": "abc", "used": {}}',
    "checks are numbers": '{"checks": [1, 2], "used": {}}',
    "checks are an object": '{"checks": {"name": 1}, "used": {}}',
    "used is a list": '{"checks": [], "used": [1]}',
    "a check without name": '{"checks": [{"passed": true}], "used": {}}',
    "name is a list": one_check(name=["<b>"]),
    "name is null": one_check(name=None),
    "passed is a text": one_check(passed="true"),
    "reason is an object": one_check(reason={"<i>": 1}),
    "reason is long": one_check(reason="x" * 900_000),
    "half of a character": one_check(reason="\ud800"),
    "control characters": one_check(reason="a\0b\x1b[31m\u202e\x85"),
    "seconds are text": used('"soon"'),
    "seconds are null": used("null"),
    "seconds are a list": used("[1]"),
    "seconds are NaN": used("NaN"),
    "seconds are infinite": used("1e999"),
    "seconds are negative": used("-5"),
    "seconds are vast": used("1" + "0" * 400),
    "images are none": one_check().replace('"used": {}', '"used": {"images": 0, "seconds": 1}'),
    "images are tiny": one_check().replace('"used": {}', '"used": {"images": 1e-320, "seconds": 1e300}'),
    "no check": '{"checks": [], "used": {}}',
    "not UTF-8": b'{"checks": [{"name": "\xff\xfe", "passed": true, "reason": "", "fix": ""}], "used": {}}',
}


# These are strange, but all checks passed.
SCORED = {
    *("name is a list", "name is null", "reason is an object", "reason is long", "half of a character"),
    *("control characters", "not UTF-8", "images are none", "images are tiny"),
    *("seconds are NaN", "seconds are infinite", "seconds are negative"),
}


@pytest.mark.parametrize("case", BAD_CHECKS)
def test_invalid_checks_are_refused_and_leave_the_page_intact(score, tmp_path, capsys, case):
    """A prediction stage that came to its end writes valid checks. Texts are shown as text."""
    stage = lay_out(tmp_path, Submitted(*synthetic()))
    data = BAD_CHECKS[case]
    (stage.result / "checks.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    code = score.main(*stage.arguments)
    # Whether JSON can be nested so deeply depends on the version of Python.
    assert code == int(case not in SCORED) or case == "deeply nested name"
    page = stages.Page(stage.page.read_text("utf-8"))
    if not code:
        assert page.numbers()["images"][0] == 200
        assert stage.scores["images"] == 200
    else:
        assert stage.written == ["detailed_results.html"]
        assert re.search("^refused: (there is no valid checks.json|failed checks: n)$", capsys.readouterr().err, re.M)
    assert len(page.source) < 150_000
    assert not {element.tag for element in page.elements} & {"i", "script"}


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
@pytest.mark.parametrize("name", ["checks.json", "probabilities.npy"])
def test_files_that_are_no_regular_files_are_not_read(score, tmp_path, kind, name):
    stage = lay_out(tmp_path, Submitted(*synthetic()))
    path = stage.result / name
    path.rename(tmp_path / "moved")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "moved" if kind == "link" else "nowhere")
    page = stage.run(score, code=int(name == "checks.json"))
    assert ("keeps no probabilities" if name == "probabilities.npy" else "no valid checks.json") in page.text
    assert name == "probabilities.npy" or "row permutation" not in page.text


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def npy(header, data=b"\0" * 6400, version=b"\x01\x00"):
    """The bytes of a .npy file with a given header."""
    header = header.encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header + data


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(descr="'<f4'", order="False", shape="(200, 8)"):
    return "{'descr': %s, 'fortran_order': %s, 'shape': %s, }\n" % (descr, order, shape)  # noqa: UP031


def changed(row, column, value):
    probabilities = synthetic()[2].copy()
    probabilities[row, column] = value
    return saved(probabilities)


GOOD = synthetic()[2]
BAD_PROBABILITIES = {
    "empty": b"",
    "text": b"0.5 0.5\n",
    "too few rows": saved(GOOD[:-1]),
    "too many rows": saved(np.concatenate([GOOD, GOOD[:1]])),
    "too few columns": saved(GOOD[:, :-1]),
    "one dimension": saved(GOOD.ravel()),
    "three dimensions": saved(GOOD[..., None]),
    "no dimension": saved(GOOD[0, 0]),
    "float64": saved(GOOD.astype(np.float64)),
    "float16": saved(GOOD.astype(np.float16)),
    "integers": saved(np.eye(8, dtype=np.int32)[synthetic()[1]]),
    "records": saved(np.zeros((200, 8), [("a", "<f4")])),
    "NaN": changed(3, 3, np.nan),
    "infinite": changed(3, 3, np.inf),
    "negative": changed(3, 3, -0.5),
    "sum is not 1": saved(GOOD * 0.9),
    "cut off": saved(GOOD)[:-100],
    "cut off in the header": saved(GOOD)[:40],
    "several arrays": b"PK\x03\x04" + b"\0" * 100,
    "far too large": saved(np.zeros((20_000, 8), np.float32)),
    "shape is a lie": npy(header(shape="(100, 16)")),
    "shape is vast": npy(header(shape="(1000000000000000, 8)")),
    "shape overflows": npy(header(shape="(4611686018427387904, 8)")),
    "shape overflows to the right size": npy(header(shape="(9223372036854775808, 2)")),
    "shape is negative": npy(header(shape="(-1, 8)")),
    "shape of truth values": npy(header(shape="(True, 8)")),
    "shape is no tuple": npy(header(shape="200")),
    "objects": npy(header("'|O'")),
    "objects within records": npy(header("[('a', '|O')]")),
    "no such type": npy(header("'<f3'")),
    "type of no size": npy(header("'|V0'")),
    "type of a vast size": npy(header("'|V2147483647'")),
    "type is a lie": npy(header("[('a',)]")),
    "type is a number": npy(header("5")),
    "header without end": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (200, 8)"),
    "header of brackets": npy("(" * 3_000),
    "header of signs": npy("-" * 3_000 + "1"),
    "header of code": npy("__import__('os').getcwd()"),
    "header is a list": npy("[1, 2]"),
    "header with other keys": npy("{'descr': '<f4'}"),
    "header with keys of other types": npy("{1: 2, 'descr': 3}"),
    "header with NUL": npy("{'descr'\0"),
    "header with a broken text": npy("{'descr': '<f4"),
    "header is longer than the file": b"\x93NUMPY\x01\x00\xff\xff{",
    "header in version 2": npy("{'descr': (", version=b"\x02\x00"),
    "header in version 3, not UTF-8": b"\x93NUMPY\x03\x00\x04\x00\x00\x00\xff\xfe\xfd\xfc",
    "version 9": npy(header(), version=b"\x09\x00"),
}


@pytest.mark.parametrize("case", BAD_PROBABILITIES)
def test_invalid_probabilities_are_ignored(score, tmp_path, case):
    stage = lay_out(tmp_path, Submitted(*synthetic()[:2]))
    (stage.result / "probabilities.npy").write_bytes(BAD_PROBABILITIES[case])
    page = stage.run(score)
    assert "keeps no probabilities" in page.text
    assert page.numbers()["images"][0] == 200


@pytest.mark.parametrize("kind", ["pickle", "array of objects", "several arrays"])
def test_probabilities_are_never_unpickled(score, tmp_path, kind):
    trap = Trap(tmp_path / "sprung")
    file = io.BytesIO()
    if kind == "pickle":
        pickle.dump(trap, file)
    elif kind == "array of objects":
        np.save(file, np.array([trap], object))
    else:
        np.savez(file, np.array([trap], object))
    stage = lay_out(tmp_path, Submitted(*synthetic()[:2]))
    (stage.result / "probabilities.npy").write_bytes(file.getvalue())
    assert "keeps no probabilities" in stage.run(score).text
    assert not (tmp_path / "sprung").exists()
    with contextlib.suppress(Exception):
        np.load(io.BytesIO(file.getvalue()), allow_pickle=True)["arr_0"]
    assert (tmp_path / "sprung").exists()  # so it was a trap


def test_damaged_headers_never_raise(score, tmp_path):
    """A good file with damage at random places is ignored, or read if it is still valid."""
    rng, path, good = np.random.default_rng(0), tmp_path / "probabilities.npy", saved(GOOD)
    for _ in range(400):
        data = bytearray(good)
        for place in rng.integers(6, 128, rng.integers(1, 4)):
            data[place] = rng.choice(list(b"{}()[]'\",:\\-\0\n 09<|fiOV\xff"))
        path.write_bytes(data)
        got = score.read_probabilities(str(path), 200, 8)
        assert got is None or (got.dtype == np.float32 and got.shape == (200, 8))
