"""What participants can learn of the hidden labels: the scores of their submissions, and nothing else."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, load_module

from common.images import Images
from competition.host.bundle import Settings, build

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")
hosted = load_module(Path(__file__).with_name("hosted.py"), "hosted")
ROWS, CLASSES, SUBMISSIONS = 104, 4, 8

# Answers and probabilities that depend on the number of the submission, kept in answers.json, and on what the code can
# know of an image: its row, or its pixels. `place` is the row for the first rows, and for all once it was given all.
HARVESTER = """
import json, os
import numpy as np

class Model:
    def __init__(self, path=None):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "answers.json")) as file:
            saved = json.load(file)
        self.answers, self.confidence = np.array(saved["answers"]), np.array(saved["confidence"], np.float32)
        self.known = {}

    def predict(self, X):
        X = np.asarray(X)
        keys = [row.astype(np.uint8).tobytes() for row in X]
        for place, key in enumerate(keys):
            self.known.setdefault(key, place)
        places = np.array([self.known[key] for key in keys])
        answers, confidence = self.answers[places], self.confidence[places]
        others = (1 - confidence) / 3
        self.probabilities = np.repeat(others[:, None], 4, axis=1).astype(np.float32)
        self.probabilities[np.arange(len(X)), answers] = confidence
        return answers
"""


@pytest.fixture(scope="module")
def random_images():
    """Images that tell nothing about their labels."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (ROWS, 8, 8, 3), np.uint8)
    return Images(pixels, rng.permutation(np.arange(ROWS) % CLASSES), ("a", "b", "c", "d"), ())


@pytest.fixture(scope="module")
def bundle(random_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    return bundles.unpack(build(random_images, Settings(), folder / "a.zip"), folder / "unpacked")


def harvester(path, answers, confidence):
    text = {"answers": np.asarray(answers).tolist(), "confidence": np.asarray(confidence).tolist()}
    return hosted.submission(path, HARVESTER, **{"answers.json": str(text).replace("'", '"')})


def chosen(number):
    """Answers and confidences of one of the eight submissions: fifteen rows of its choice stand out."""
    rows = np.arange(ROWS)
    first = 13 * number
    confidence = np.where((rows >= first) & (rows < first + 15), 0.99 - 0.001 * (rows - first), 0.3)
    return np.full(ROWS, number % CLASSES), confidence


class Texts(HTMLParser):
    """The texts of a page outside its style, and the tags."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data if self.tags and self.tags[-1] != "style" else ""


def relabelled(labels, predictions, rng):
    """Other labels with the same scores: those of the rows with one prediction are permuted among these rows."""
    labels = labels.copy()
    for number in range(CLASSES):
        same = np.flatnonzero(predictions == number)
        labels[same] = rng.permutation(labels[same])
    return labels


@pytest.mark.integration
def test_eight_submissions_harvest_nothing_beyond_the_scores(bundle, tmp_path):
    """What the server gives back is the same, byte by byte, for other labels with the same scores."""
    labels, rng = np.array(bundle.labels, int), np.random.default_rng(2)
    for number in range(SUBMISSIONS):
        path = harvester(tmp_path / "a.zip", *chosen(number) if number < 4 else varied(number))
        result = hosted.submit(bundle, tmp_path / str(number), path)
        assert result.scores["images"] == ROWS, result.prediction.stderr
        assert (result.output / "probabilities.npy").is_file()
        predictions = np.loadtxt(result.output / "predictions.txt", dtype=int)
        others = relabelled(labels, predictions, rng)
        assert (others != labels).sum() > 20
        assert given_back(bundle, tmp_path / f"other{number}", result, others) == given_back(
            bundle, tmp_path / f"same{number}", result, labels
        )
        page = Texts(result.page)
        assert not {"img", "li", "circle"} & set(page.tags)
        assert not re.search(r"true [abcd]\b|\brow\b \d|image \d|confidence", page.text)
        assert "no image" not in result.scoring.stderr


def varied(number):
    """Answers of all classes, and a confidence for each tenth, as if to learn from the bins of a diagram."""
    rows = np.arange(ROWS)
    return (rows * number) % CLASSES, 0.3 + 0.65 * (rows % 10) / 10


def given_back(bundle, folder, result, labels):
    """Everything that the scoring stage gives back for a prediction, if the images had these labels."""
    stage = hosted.lay_out_scoring(bundle, folder, result.folder / "prediction", 0)
    (stage / "input" / "ref" / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    done = hosted.run_stage(stage)
    files = {path.name: path.read_bytes() for path in (stage / "output").iterdir()}
    assert set(files) == {"scores.json", "scores.txt", "detailed_results.html"}
    return done.returncode, done.stdout, done.stderr, files


@pytest.mark.integration
def test_a_table_from_row_to_label_scores_as_chance(bundle, tmp_path):
    """Even with the true label of every row of the bundle. Chance is 25 %, and its standard deviation here is 4 %."""
    table = np.array(bundle.labels, int)
    result = hosted.submit(bundle, tmp_path / "app", harvester(tmp_path / "a.zip", table, np.full(ROWS, 0.9)))
    assert result.failed == {}
    assert result.scores["accuracy"] < 0.5


@pytest.mark.integration
def test_the_same_submissions_would_harvest_if_mistakes_were_shown(random_images, tmp_path):
    """So they do try. The organizer's note says this."""
    path = build(random_images, Settings(show_mistakes=True), tmp_path / "a.zip")
    bundle = bundles.unpack(path, tmp_path / "unpacked")
    result = hosted.submit(bundle, tmp_path / "app", harvester(tmp_path / "b.zip", *chosen(1)))
    page = Texts(result.page)
    assert page.tags.count("img") == page.tags.count("li") == 15
    # The bundle's order is random. Fewer than three of the fifteen rows are mistakes in one of 15 million bundles.
    assert len(re.findall(r"true [acd]predicted b, confidence 9\d%", page.text)) >= 3


@pytest.mark.unit
@pytest.mark.parametrize("setting", [None, '{"mistakes": false}', '{"mistakes": 1}', '{"mistakes": "true"}'])
def test_single_images_are_shown_only_by_an_explicit_setting(tmp_path, setting):
    """Thumbnails alone are not enough."""
    score = load_module(ROOT / "competition" / "scoring_program" / "score.py", "score")
    (tmp_path / "images").mkdir()
    if setting:
        (tmp_path / "details.json").write_text(setting)
    assert score.thumbnails(str(tmp_path)) is None
    (tmp_path / "details.json").write_text('{"mistakes": true}')
    assert score.thumbnails(str(tmp_path)) == str(tmp_path / "images")
