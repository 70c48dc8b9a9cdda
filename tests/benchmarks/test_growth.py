"""benchmarks.growth: exponents, the points of the series, and small measurements."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import Failed, growth
from benchmarks.growth import TASKS, Point, above_linear, exponent, points, series_record
from benchmarks.result import read_result
from docs import fill
from training.evaluate import plots


@pytest.mark.unit
@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_exponent_is_that_of_the_power(power):
    at = [1.0, 3.0, 10.0]
    assert exponent(at, [7 * x**power for x in at]) == pytest.approx(power)


def series(axis, *seconds):
    """A series whose images or sides double, with the same memory everywhere."""
    sizes = [(10 * 2**n, 96) if axis == "images" else (10, 96 * 2**n) for n in range(len(seconds))]
    values = [{"seconds": value, "peak_mb": 500.0} for value in seconds]
    return series_record(
        "prediction", axis, {Point("prediction", *s, False): v for s, v in zip(sizes, values, strict=True)}
    )


@pytest.mark.unit
@pytest.mark.parametrize(
    ("axis", "seconds", "named"),
    [
        ("images", (1, 2, 4), False),
        ("images", (1, 4, 16), True),
        ("images", (9, 10, 40), True),  # a fixed cost hides it, but not from the last two points
        ("pixels", (1, 4, 16), False),
        ("pixels", (1, 16, 256), True),
    ],
)
def test_what_grows_faster_than_linearly_is_named(axis, seconds, named):
    lines = list(above_linear([series(axis, *seconds)]))
    assert len(lines) == named
    assert all(f"prediction, seconds against {axis}" in line for line in lines)


@pytest.mark.unit
def test_series_have_the_images_up_to_the_most_and_two_points_at_least():
    counts = [point.count for point in points(3000, False)[0][2]]
    assert counts == [100, 300, 1000, 3000]
    for quick in (False, True):
        series = points(growth.MOST, quick)
        assert [(task, axis) for task, axis, _ in series] == [(task, axis) for task in TASKS for axis in growth.AXES]
        for _, axis, part in series:
            assert len(part) >= 2
            assert len({point.side if axis == "images" else point.count for point in part}) == 1


@pytest.mark.unit
def test_point_that_fails_is_named_and_the_others_are_measured(monkeypatch, tmp_path, capsys):
    class Fake:
        def __init__(self, name, setup, point):
            self.point = point

        def __enter__(self):
            if self.point.task == "training epoch" and self.point.count == 10_000:
                raise Failed("the process ended with exit code -9")
            return self

        def __exit__(self, *error):
            pass

        def __call__(self):
            return {"seconds": self.point.count * self.point.side**2 / 1e6, "peak_mb": 1000.0}

    monkeypatch.setattr(growth, "Process", Fake)
    path, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    assert growth.main(["--json", str(path), "--picture", str(picture)]) == 0
    result = read_result(path)
    assert ["10000 images" in line for line in result["not_measured"]] == [True]
    by_name = {(row["task"], row["axis"]): row for row in result["series"]}
    assert by_name["training epoch", "images"]["at"] == [100, 300, 1000, 3000]
    assert by_name["prediction", "images"]["at"][-1] == 10_000
    assert all(row["seconds_exponent"] == pytest.approx(1) for row in result["series"])
    out = capsys.readouterr().out
    assert "exit code -9" in out
    assert "above linear" not in out
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert fill._growth_rows(result).count("\n| ") == 2 + len(result["series"])


@pytest.mark.unit
def test_labels_of_log_axes_are_drawn_as_math_whatever_was_drawn_before(tmp_path, monkeypatch):
    plots.new_figure(1, 1, (2, 2))  # shows names with dollar signs as they are
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    growth.draw([series(axis, 1, 2, 40) for axis in growth.AXES], tmp_path / "growth.png")
    figures[0].canvas.draw()
    labels = [label for panel in figures[0].axes for label in (*panel.get_xticklabels(), *panel.get_yticklabels())]
    assert any("$" in label.get_text() for label in labels)
    assert all(label.get_parse_math() for label in labels)


@pytest.mark.unit
@pytest.mark.parametrize("count", [100, 300, 1000, 100_000])
def test_a_fifth_is_held_out_of_every_class(count):
    rows = growth.held_out(count)
    assert rows.mean() == pytest.approx(0.2, abs=0.05)
    assert len(set(np.flatnonzero(rows) % growth.CLASSES)) == growth.CLASSES


@pytest.mark.unit
@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_quick_trial_replaces_no_result(tmp_path, capsys, option):
    assert growth.main(["--quick", option, str(tmp_path / "trial")]) == 2
    assert "--quick is only a trial; give another --json and --picture" in capsys.readouterr().err


@pytest.mark.unit
@pytest.mark.parametrize("options", [["--most", "100"], ["--picture", "no/folder/growth.png"]])
def test_wrong_options_are_refused(tmp_path, capsys, options):
    assert growth.main(["--json", str(tmp_path / "growth.json"), *options]) == 2
    assert options[1] in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize("task", ["feature caching", pytest.param("training epoch", marks=pytest.mark.slow)])
def test_tasks_of_a_small_network(task):
    values = growth.timed(Point(task, 40, 48, small=True))()
    assert values["seconds"] > 0
    assert values["peak_mb"] > 100


@pytest.mark.slow
def test_growth(tmp_path):
    path, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    assert growth.main(["--quick", "--json", str(path), "--picture", str(picture)]) == 0
    result = read_result(path)
    assert result["quick"]
    assert [row["task"] for row in result["series"]] == [task for task in TASKS for _ in growth.AXES]
    assert all(value > 0 for row in result["series"] for value in row["seconds"] + row["peak_mb"])
    assert not result["not_measured"]
