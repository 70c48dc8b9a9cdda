"""The programs that run on the server need neither this project nor a recent Python."""

import ast
import sys

import pytest
from helpers import ROOT

pytestmark = pytest.mark.unit

PROGRAMS = [
    ROOT / "submission" / "model.py",
    *sorted((ROOT / "competition" / "ingestion_program").glob("*.py")),
    *sorted((ROOT / "competition" / "scoring_program").glob("*.py")),
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_program_imports_nothing_of_this_project_and_parses_as_python_3_8(path):
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} is a relative import"
            imported.add(node.module.partition(".")[0])
    allowed = {"numpy", "tensorflow", "PIL", "model"} | {other.stem for other in path.parent.glob("*.py")}
    assert imported - allowed <= set(sys.stdlib_module_names)
