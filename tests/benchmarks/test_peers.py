"""benchmarks.peers: processes that are called over a pipe, the comparison of labels, absent peers, and ratios."""

import functools
import importlib.metadata
import importlib.util
import operator
import os

import numpy as np
import pytest

from benchmarks import Failed, peers
from benchmarks.peers import BASELINE, CONTESTANTS, OURS, agreement, check_labels, record
from benchmarks.process import NotMeasured, Process
from benchmarks.result import read_result
from common.errors import UserError
from common.images import load_folder
from docs import fill

CLEAR = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])


@pytest.mark.unit
def test_only_clear_images_decide_whether_labels_agree():
    reference = np.array([[0.9, 0.1], [0.52, 0.48]])
    agrees = agreement(np.array([[0.8, 0.2], [0.48, 0.52]]), reference)
    assert agrees["same_labels"] == 0.5
    assert (agrees["clear_images"], agrees["same_labels_of_clear_images"]) == (1, 1.0)
    assert agrees["largest_difference"] == pytest.approx(0.1)
    check_labels("peer", agrees)


@pytest.mark.unit
def test_other_labels_of_clear_images_are_refused():
    with pytest.raises(Failed, match="peer must agree"):
        check_labels("peer", agreement(CLEAR[:, ::-1], CLEAR))


@pytest.mark.unit
def test_ratios_are_to_float32_and_to_the_faster_precision_of_the_submission():
    seconds = {OURS[0]: np.array([4.0, 4.0]), OURS[1]: np.array([2.0, 1.0]), "peer": np.array([3.0, 3.0])}
    rows = record(seconds, images=12)
    assert peers.fastest(seconds) == OURS[1]
    assert (rows["peer"]["ours_min"], rows["peer"]["ours_median"], rows["peer"]["ours_max"]) == (1.5, 2.25, 3.0)
    assert (rows["peer"]["images_per_second"], rows["peer"]["ratio_median"]) == (4.0, pytest.approx(4 / 3))
    assert (rows[OURS[1]]["images_per_second_min"], rows[OURS[1]]["images_per_second_max"]) == (6.0, 12.0)
    assert "2.25 (1.50 to 3.00)" in list(peers.table(rows, 2))[-1]


class Fake:
    """A contestant in this process: {name: probabilities, or the error that loading raises}."""

    answers: dict = {}
    calls: list = []

    def __init__(self, name, *arguments):
        self.name = name
        if isinstance(self.answers[name], Exception):
            raise self.answers[name]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __call__(self):
        self.calls.append(self.name)
        return 0.5, self.answers[self.name]


@pytest.fixture
def fake(monkeypatch):
    """Fake contestants that all agree, with all packages installed."""
    monkeypatch.setattr(Fake, "answers", dict.fromkeys(CONTESTANTS, CLEAR))
    monkeypatch.setattr(Fake, "calls", [])
    monkeypatch.setattr(peers, "Process", Fake)
    monkeypatch.setattr(peers, "convert", lambda model, onnx: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    return Fake


@pytest.mark.unit
def test_contestants_predict_in_turn(fake):
    seconds, _, missing = peers.measure(np.zeros((3, 96, 96, 3), np.uint8), rounds=2, batch_size=2)
    assert fake.calls == [*CONTESTANTS] * 3
    assert not missing
    assert all(values.tolist() == [0.5, 0.5] for values in seconds.values())


@pytest.mark.unit
def test_absent_peers_are_named_and_left_out(fake, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("openvino", "tf2onnx") else name)
    monkeypatch.setattr(peers, "convert", lambda model, onnx: pytest.fail("converted"))
    fake.answers[OURS[1]] = NotMeasured("no bfloat16")
    seconds, agrees, missing = peers.measure(np.zeros((3, 96, 96, 3), np.uint8), rounds=1, batch_size=2)
    assert list(seconds) == list(agrees) == [BASELINE]
    assert set(missing) == set(CONTESTANTS) - {BASELINE}
    assert missing[OURS[1]] == "no bfloat16"
    assert "openvino" in missing["OpenVINO, float32"]
    assert "requirements-peers.txt" in missing["ONNX Runtime, float32"]


@pytest.mark.unit
def test_contestant_with_other_labels_ends_the_measurement(fake):
    fake.answers["OpenVINO, bfloat16"] = CLEAR[:, ::-1]
    with pytest.raises(Failed, match="OpenVINO, bfloat16 must agree"):
        peers.measure(np.zeros((3, 96, 96, 3), np.uint8), rounds=1, batch_size=2)


@pytest.mark.unit
def test_more_images_than_photographs_are_refused(leaf_folder, tmp_path, capsys):
    assert peers.main(["--data", str(leaf_folder), "--images", "25", "--json", str(tmp_path / "peers.json")]) == 2
    assert "at most the 24 images" in capsys.readouterr().err


@pytest.mark.integration
def test_process_answers_calls_and_keeps_its_state():
    with Process("adder", functools.partial, operator.add, 1) as process:
        assert [process(2), process(3)] == [3, 4]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("setup", "arguments", "error", "text"),
    [
        (functools.partial, (os._exit, 3), Failed, "exit code 3"),
        (functools.partial, (load_folder, "/missing"), UserError, "/missing"),
        (operator.truediv, (1, 0), Failed, "exit code 1"),
        (load_folder, ("/missing",), UserError, "/missing"),
    ],
)
def test_failure_of_a_process_reaches_the_caller(setup, arguments, error, text):
    with pytest.raises(error, match=text), Process("it", setup, *arguments) as process:
        process()


@pytest.mark.slow
def test_peers(tmp_path):
    path = tmp_path / "peers.json"
    assert peers.main(["--images", "16", "--rounds", "1", "--json", str(path)]) == 0
    result = read_result(path)
    assert {*result["contestants"], *result["not_measured"]} == set(CONTESTANTS)
    assert result["contestants"][BASELINE]["images_per_second"] > 0
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    if {"tf2onnx", "onnxruntime"} <= installed:
        assert result["contestants"]["ONNX Runtime, float32"]["largest_difference"] < 1e-3
    assert fill._peer_rows(result).count("\n") == 3 + len(CONTESTANTS)
