"""The recipes: one file each, and the table of small variants in ablations.py."""

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError

if TYPE_CHECKING:
    from training.config.recipe import Recipe

TABLE = "ablations"
RENAMED = {"leaderboard": "released", "leaderboard_full": "released_full"}
HERE = Path(__file__).parent


def recipe_names() -> list[str]:
    """The names of all recipes, sorted."""
    files = [module.name for module in pkgutil.iter_modules([str(HERE)]) if module.name != TABLE]
    return sorted([*files, *_ablation_summaries()])


def recipe_groups(reported: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns all recipes in groups.

    Args:
        reported: names of the report's experiments, in the report's order.

    Returns:
        (title, names of recipes): the report's models, ours, and the rows of ablations.py.
    """
    order = {name: place for place, name in enumerate(reported)}
    table = _ablation_summaries()
    files = [name for name in recipe_names() if name not in table]
    return [
        ("The report's models, in its order", sorted(order.keys() & set(files), key=order.__getitem__)),
        ("Ours", [name for name in files if name not in order]),
        ("Ablations: the report's small comparisons", sorted(table, key=lambda name: order.get(name, len(order)))),
    ]


def load_recipe(name: str) -> "Recipe":
    """The recipe of that name.

    Raises:
        UserError: no such recipe; the text names the nearest ones.
    """
    known = recipe_names()
    if name in RENAMED:
        raise UserError(f"the recipe {name} is now called {RENAMED[name]}")
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or known
        raise UserError(f"no recipe {name}; did you mean {', '.join(near)}? See python -m training list")
    if name in _ablation_summaries():
        return importlib.import_module(f"{__name__}.{TABLE}").recipe(name)
    return importlib.import_module(f"{__name__}.{name}").recipe


def recipe_summary(name: str) -> str:
    """The first paragraph of a recipe's docstring, read without importing TensorFlow."""
    if name in _ablation_summaries():
        return _ablation_summaries()[name]
    try:
        text = ast.get_docstring(_parsed(name)) or "no description"
    except SyntaxError as error:
        return f"no description: {name}.py has a syntax error in line {error.lineno}"
    return " ".join(text.split("\n\n")[0].split())


def _parsed(name: str) -> ast.Module:
    return ast.parse((HERE / f"{name}.py").read_text("utf-8"))


def _ablation_summaries() -> dict[str, str]:
    """The names and descriptions of the table's rows, read from its source."""
    for node in _parsed(TABLE).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            rows = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(key): ast.literal_eval(row.elts[0]) for key, row in rows}  # type: ignore
    return {}
