"""The recipes: one file each, and the table of small variants in ablations.py."""

import ast
import difflib
import importlib
import pkgutil
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
    """The first line of a recipe's docstring, read without importing TensorFlow."""
    if name in _ablation_summaries():
        return _ablation_summaries()[name]
    text = ast.get_docstring(_parsed(name)) or "no description"
    return text.splitlines()[0]


def _parsed(name: str) -> ast.Module:
    return ast.parse((HERE / f"{name}.py").read_text("utf-8"))


def _ablation_summaries() -> dict[str, str]:
    """The names and descriptions of the table's rows, read from its source."""
    for node in _parsed(TABLE).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            rows = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(key): ast.literal_eval(row.elts[0]) for key, row in rows}  # type: ignore
    return {}
