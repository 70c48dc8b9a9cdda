"""The validation of untrusted data, without processes: the runner's responses and the ingestion program's journal."""

import json

import numpy as np
import pytest
from helpers import ROOT, load_module, stub

from competition.grade.journal import parse_journal, read_journal

PROGRAMS = ROOT / "competition" / "ingestion_program"
ingestion = load_module(PROGRAMS / "ingestion.py", "ingestion")
runner = load_module(PROGRAMS / "runner.py", "runner")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)
ROWS = list(range(len(IMAGES)))
FORGED_JOURNALS = {
    "no JSON": "{",
    "no dictionary": "3",
    "no records": '{"checks": [1, 2], "used": {}}',
    "other values": (
        '{"checks": [{"name": "one image", "passed": "yes", "reason": 1, "fix": null, "seconds": "x"}], "used": {}}'
    ),
    "nested too deeply": "[" * 200_000,
    "a huge number": '{"checks": [], "used": {"seconds": 1' + "0" * 400 + "}}",
    "too large": " " * 2_000_000,
}


class StubSubmission:
    """A stub submission behind the runner's `predict`, in this process instead of one of its own."""

    def __init__(self, answers, class_name="Model"):
        source = {}
        exec(stub(answers), source)
        self.network, self.class_name = source["model"](), class_name

    def request(self, request):
        images = runner.as_input(IMAGES, request["dtype"], self.class_name)
        header, self.payload = runner.predict(self.network, images)
        return json.loads(json.dumps(header))

    def array(self, dtype, shape):
        return np.frombuffer(self.payload, dtype, count=int(np.prod(shape))).reshape(shape)


@pytest.mark.unit
@pytest.mark.parametrize(
    "answers",
    [
        "good - 8",
        "good * 1000",
        "good * np.nan",
        "good.astype(bool)",
        "good.astype(complex)",
        "good.astype(str)",
        "good.astype(object)",
        "None",
        "3",
        "x",
        "good.tolist()",
        "good[:, None]",
        "np.eye(8, dtype=np.int64)[good]",
        "np.append(good, 0)",
        "(number for number in good)",
        "' '.join(map(str, good))",
        "{0: 1}",
    ],
)
def test_predictions_of_a_wrong_form_fail(answers):
    with pytest.raises(ingestion.Failed) as caught:
        ingestion.predictions_of(StubSubmission(answers), {"rows": ROWS, "dtype": "float32"}, 8)
    reason, fix = caught.value.args
    assert reason.startswith("predict returned ")
    assert fix.startswith("return ")


@pytest.mark.unit
@pytest.mark.parametrize("answers", ["good", "good.astype(np.uint8)", "good.astype(np.int32)", "good.astype('>i8')"])
def test_arrays_of_a_right_form_are_returned_as_int64(answers):
    assert_right(StubSubmission(answers))


@pytest.mark.integration
def test_tensors_of_a_right_form_are_returned_as_int64():
    assert_right(StubSubmission("__import__('tensorflow').constant(good)", "model"))


def assert_right(submission):
    predictions, probabilities = ingestion.predictions_of(submission, {"rows": ROWS, "dtype": "uint8"}, 8)
    assert predictions.dtype == np.int64
    assert predictions.tolist() == (IMAGES.astype(np.int64)[:, ::7, ::5].sum((1, 2, 3)) % 8).tolist()
    assert probabilities is None


@pytest.mark.integration
def test_lower_case_class_is_given_a_tensor():
    request = {"rows": ROWS, "dtype": "uint8"}
    submission = StubSubmission("np.full(len(x), X.__class__.__name__ == 'EagerTensor').astype(int)", "model")
    assert ingestion.predictions_of(submission, request, 8)[0].tolist() == [1] * 5


@pytest.mark.unit
@pytest.mark.parametrize("value", ["bfloat16", "a\x1b[2J", "two words", "x" * 21, 16, None, ["a"], {}], ids=str)
def test_precision_is_kept_if_it_is_the_name_of_a_type(tmp_path, value):
    (tmp_path / "checks.json").write_text(json.dumps({"checks": [], "used": {"seconds": 1, "precision": value}}))
    kept = {"precision": value} if value == "bfloat16" else {}
    assert parse_journal(tmp_path / "checks.json") == ({}, {"seconds": 1.0, **kept})
    assert ingestion.is_precision(value) == bool(kept)


@pytest.mark.unit
def test_a_model_need_not_have_a_precision():
    class Odd:
        @property
        def precision(self):
            raise OSError("measures something")

    class Score:
        precision = 0.93

    class Half:
        precision = "float16"

    assert [runner.precision_of(network) for network in (object(), Odd(), Score(), Half())] == ["", "", "", "float16"]


@pytest.mark.unit
@pytest.mark.parametrize("case", FORGED_JOURNALS)
def test_forged_journal_is_ignored(tmp_path, case):
    """A submission can write the journal and then be stopped together with the program that would replace it."""
    (tmp_path / "checks.json").write_text(FORGED_JOURNALS[case])
    for read in (parse_journal, read_journal):
        assert read(tmp_path / "checks.json") == ({}, {})
