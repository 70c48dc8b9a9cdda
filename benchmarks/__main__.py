"""Lists the benchmarks and their commands."""

import ast
import sys
from pathlib import Path

from benchmarks import RESULTS
from common.cli import argument_parser, run_command

HERE = Path(__file__).parent


def summaries() -> dict[str, str]:
    """The names of the benchmarks, and the first lines of their docstrings. Imports none of them.

    A benchmark is a module with a function `main`.
    """
    modules = {path.stem: ast.parse(path.read_text("utf-8")) for path in sorted(HERE.glob("[!_]*.py"))}
    return {
        name: (ast.get_docstring(module) or "").partition("\n")[0]
        for name, module in modules.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body)
    }


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
