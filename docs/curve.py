"""Draws docs/img/own_data.png, accuracy against time on several data sets, from results/benchmarks/own_data*.json.

  python -m docs.curve

exit codes: 0 drawn, 2 a result is missing
"""

import sys
from pathlib import Path

from benchmarks.result import read_result
from common.cli import argument_parser, run_command
from common.errors import UserError
from common.files import atomically

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "img" / "own_data.png"
RESULTS = {
    "groceries": ("own_data", "own_data_60"),
    "leaves": ("own_data_leaves",),
    "digits": ("own_data_digits",),
}
MARKERS = {"auto": "o", "twenty lines": "x", "forty lines": "+"}


def points(names: tuple[str, ...]) -> list[tuple[str, float, float]]:
    """The kind (a key of MARKERS), minutes and test accuracy in percent of each contestant in some results."""
    found = []
    for name in names:
        path = ROOT / "results" / "benchmarks" / f"{name}.json"
        if not path.is_file():
            raise UserError(f"{path} is missing; run python -m benchmarks.own_data with --json {path.name}")
        for contestant, row in read_result(path).items():
            found.append((contestant.partition(",")[0], row["seconds"] / 60, 100 * row["test_accuracy"]))
    return sorted(found, key=lambda point: point[1])


def draw(path: Path) -> None:
    """Draws the curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for number, (data, names) in enumerate(RESULTS.items()):
        for kind, marker in MARKERS.items():
            own = [point[1:] for point in points(names) if point[0] == kind]
            if own:
                minutes, accuracies = zip(*own, strict=True)
                line = "-" if kind == "auto" else "None"
                label = f"{kind}, {data}"
                axes.plot(minutes, accuracies, marker=marker, color=f"C{number}", linestyle=line, label=label)
    ticks = (1, 3, 10, 30, 60)
    axes.set(xscale="log", xlabel="minutes", ylabel="test images classified correctly, %", ylim=(None, 100))
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Draws. Returns the exit code."""
    argument_parser(__doc__, "python -m docs.curve").parse_args(arguments)
    return run_command(lambda: draw(PICTURE))


if __name__ == "__main__":
    sys.exit(main())
