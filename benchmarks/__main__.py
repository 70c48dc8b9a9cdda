"""Lists the benchmarks and their commands."""

import ast
import sys
from pathlib import Path

from benchmarks import RESULTS
from common.cli import argument_parser, run_command

HERE = Path(__file__).parent


def summaries() -> dict[str, str]:
    """The names of the benchmarks, and the first lines of their docstrings. Imports none of them."""
    files = sorted(path for path in HERE.glob("*.py") if path.stem not in ("__init__", "__main__", "process"))
    docstrings = {path.stem: ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in files}
    return {name: text.partition("\n")[0] for name, text in docstrings.items()}


def main(arguments: list[str] | None = None) -> int:
    """Prints the list. Returns the exit code."""
    argument_parser(__doc__, "python -m benchmarks").parse_args(arguments)
    return run_command(_list)


def _list() -> None:
    for name, summary in summaries().items():
        print(f"python -m benchmarks.{name}\n    {summary}")
    print(f"\nEach writes {RESULTS}/NAME.json and has --help. Run them on an idle machine.")


if __name__ == "__main__":
    sys.exit(main())
