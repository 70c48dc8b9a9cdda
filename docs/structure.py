"""Measure the structure of the code, and draw the data flow.

  python -m docs.structure                                      the measures, as in docs/architecture.md
  python -m docs.structure --picture docs/img/architecture.png  the picture

exit codes: 0 within the limits, 1 a limit is exceeded, 2 wrong input
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.cli import argument_parser, run_command

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("common", "training", "submission", "competition", "benchmarks", "docs")
MAX_LINES, MAX_PARAMETERS, MAX_SCRIPT_LINES = 40, 6, 100
# A package imports only packages that stand before it in this order, and itself.
ORDER = ("common", "submission", "competition", "training", "benchmarks", "docs")
FORBIDDEN = {
    "common": ("sklearn", "tensorflow", "keras"),
    "competition": ("training", "sklearn"),
    "training": ("competition.grade", "competition.upload", "competition.host"),
}
STAGES = (
    ("images", "class folders of image files", ""),
    ("arrays", "Images: uint8 [n, h, w, 3], labels", "common/images.py"),
    ("split", "training and validation part", "training/data/split.py"),
    ("balance", "resampling, repeats, weights", "training/data/balance.py"),
    ("pipeline", "augmented batches", "training/data/pipeline.py"),
    ("fit", "fine-tuned backbone, quasi-SVM", "training/fit/"),
    ("export", "SavedModel", "training/export.py"),
    ("zip", "submission.zip", "competition/package/build.py"),
    ("grade", "verdict and scores", "competition/grade/grade.py"),
    ("upload", "the server's scores", "competition/upload/"),
)


@dataclass(frozen=True)
class Function:
    """A function: where it is, its lines without the docstring, and its parameters without self."""

    place: str
    lines: int
    parameters: int


def sources(*folders: str) -> list[Path]:
    """The Python files of some packages, and of the root scripts if none is named."""
    files = [path for folder in folders or PACKAGES for path in sorted((ROOT / folder).rglob("*.py"))]
    return files if folders else [*files, *sorted(ROOT.glob("*.py"))]


def functions() -> Iterator[Function]:
    """Every function and method of the product."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                documented = ast.get_docstring(node, clean=False) is not None
                docstring = node.body[0] if documented else None
                hidden = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                own = [argument for argument in arguments if argument.arg not in ("self", "cls")]
                place = f"{path.relative_to(ROOT)}:{node.name}"
                yield Function(place, (node.end_lineno or 0) - node.lineno + 1 - hidden, len(own))


def imports(path: Path) -> set[str]:
    """The full names of the modules that a file imports, at its head or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def wrong_imports() -> list[str]:
    """Imports against the order of the packages, or of a module that a package must not need."""
    wrong = []
    for package in PACKAGES:
        later = ORDER[ORDER.index(package) + 1 :] if package in ORDER else ()
        for path in sources(package):
            for name in sorted(_with_parents(imports(path))):
                if name in FORBIDDEN.get(package, ()) or name in later:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    return wrong


def _with_parents(modules: Iterable[str]) -> set[str]:
    """Modules and the packages that they are in."""
    parts = [module.split(".") for module in modules]
    return {".".join(names[: count + 1]) for names in parts for count in range(len(names))}


def circles() -> list[str]:
    """Modules that import each other in a circle at their head."""
    graph = {_module(path): _head_imports(path) for path in sources()}
    return sorted({module for module in graph if module in _reachable(graph, module)})


def recipe_depths() -> dict[str, int]:
    """Recipe file → how many other recipe files it is built from, one upon another."""
    folder = ROOT / "training" / "recipes"
    bases = defaultdict(set)
    for path in folder.glob("*.py"):
        names = {name.split(".")[2] for name in imports(path) if name.startswith("training.recipes.")}
        bases[path.stem] = names - {path.stem}

    def depth(name: str) -> int:
        return max((1 + depth(base) for base in bases[name]), default=0)

    return {name: depth(name) for name in sorted(bases) if name != "__init__"}


def measure() -> tuple[list[str], bool]:
    """The measures as lines of text, and whether all limits hold."""
    every = list(functions())
    longest, most = max(every, key=lambda f: f.lines), max(every, key=lambda f: f.parameters)
    scripts = {path.name: len(path.read_text("utf-8").splitlines()) for path in ROOT.glob("*.py")}
    wrong, loops, depths = wrong_imports(), circles(), recipe_depths()
    lines = [
        f"longest function: {longest.lines} lines, {longest.place} (limit {MAX_LINES}, docstrings not counted)",
        f"most parameters: {most.parameters}, {most.place} (limit {MAX_PARAMETERS})",
        f"longest root script: {max(scripts.values())} lines (limit {MAX_SCRIPT_LINES})",
        f"imports against the order {' < '.join(ORDER)}: {len(wrong)}",
        f"modules in an import circle: {len(loops)}",
        f"recipes built upon another: {sum(map(bool, depths.values()))}, at most {max(depths.values())} deep (limit 1)",
    ]
    lines += [f"  {line}" for line in (*wrong, *loops)]
    holds = (
        longest.lines <= MAX_LINES and most.parameters <= MAX_PARAMETERS and max(scripts.values()) <= MAX_SCRIPT_LINES
    )
    return lines, holds and not wrong and not loops and max(depths.values()) <= 1


def draw(path: Path) -> None:
    """Draws the stages of the data, each with what comes out of it and the file that does it."""
    import matplotlib

    from common.files import atomically

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(13, 4.6), layout="constrained")
    columns = 5
    for number, (stage, result, file) in enumerate(STAGES):
        row, place = divmod(number, columns)
        x, y = (place if row == 0 else columns - 1 - place) * 2.6, -row * 2.2
        axis.add_patch(pyplot.Rectangle((x - 1.1, y - 0.7), 2.2, 1.4, facecolor="#eef5ea", edgecolor="seagreen"))
        axis.text(x, y + 0.35, stage, ha="center", va="center", fontsize=13, weight="bold")
        axis.text(x, y - 0.08, result, ha="center", va="center", fontsize=8)
        axis.text(x, y - 0.45, file, ha="center", va="center", fontsize=7.5, family="monospace", color="dimgrey")
        if number + 1 < len(STAGES):
            down = place == columns - 1
            start, end = (
                ((x, y - 0.7), (x, y - 1.5)) if down else ((x + (1.1, -1.1)[row], y), (x + (1.5, -1.5)[row], y))
            )
            axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "seagreen", "lw": 1.8})
    axis.set_xlim(-1.3, (columns - 1) * 2.6 + 1.3)
    axis.set_ylim(-3.1, 0.9)
    axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, lambda temporary: figure.savefig(temporary, dpi=110, format="png"))
    pyplot.close(figure)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _head_imports(path: Path) -> set[str]:
    """Imports at the head of a file; those under TYPE_CHECKING and inside functions make no circle."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module in graph and module not in seen:
            seen.add(module)
            waiting.extend(graph[module])
    return seen


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argument_parser(__doc__, "python -m docs.structure")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the data flow into this PNG file")
    options = parser.parse_args(arguments)

    def command() -> int:
        if options.picture:
            draw(options.picture)
            return 0
        lines, holds = measure()
        print("\n".join(lines))
        return 0 if holds else 1

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
