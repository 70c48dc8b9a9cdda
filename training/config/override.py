"""Strict overrides of a recipe's fields: `--set finetune.batch_size=16`."""

import ast
import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from common.errors import UserError
from training.config.recipe import SOFTMAX, Finetune, Recipe
from training.config.record import RENAMED
from training.model.backbones import PRETRAINED
from training.model.trainable import CHOICES


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Applies `section.field=literal` settings.

    Args:
        recipe: the recipe to change.
        settings: strings, each the full name of a field and a Python literal. Text needs no quotes.

    Returns:
        A new `Recipe`. All settings are applied at once, so that fields that depend on each other can be changed
        together.

    Raises:
        UserError: an unknown field, a value that is no Python literal, of another type, or out of range.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise UserError(f"--set {setting}: must be field=value, for example --set finetune.batch_size=16")
        _note(changes, name, _literal(text, _current(recipe, name, setting), setting))
    return _applied(recipe, changes)


def change(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A variant of a recipe.

    Args:
        recipe: the base.
        changes: full name of a field → its value, for example {"finetune.batch_size": 16}.

    Raises:
        AttributeError: an unknown field.
        UserError: a value out of range.
    """
    nested: dict[str, Any] = {}
    for name, value in changes.items():
        _note(nested, name, value)
    return _applied(recipe, nested)


def in_bfloat16(recipe: Recipe) -> Recipe:
    """The recipe with a fine-tuning in mixed_bfloat16 instead of float32, and with cached features in bfloat16.

    A recipe whose backbone is not a pretrained one is returned unchanged: the networks that are trained from scratch
    have 8 to 64 channels, and convolutions of so few are slower in bfloat16.
    """
    if recipe.finetune.backbone not in PRETRAINED:
        return recipe
    cached = recipe.head.kind != SOFTMAX or recipe.finetune.head_warmup_epochs
    head = dataclasses.replace(recipe.head, feature_precision="bfloat16") if cached else recipe.head
    return dataclasses.replace(recipe, finetune=_mixed(recipe.finetune), head=head)


def with_precision_of(recipe: Recipe, other: Recipe) -> Recipe:
    """The recipe with the precisions of another one, of the fine-tunings and of the cached features."""
    head = dataclasses.replace(recipe.head, feature_precision=other.head.feature_precision)
    return dataclasses.replace(recipe, finetune=_in_precision_of(recipe.finetune, other.finetune), head=head)


def _in_precision_of(finetune: Finetune, other: Finetune) -> Finetune:
    earlier = finetune.init_from
    if earlier and other.init_from:
        earlier = _in_precision_of(earlier, other.init_from)
    return dataclasses.replace(finetune, precision=other.precision, init_from=earlier)


def _mixed(finetune: Finetune) -> Finetune:
    precision = "mixed_bfloat16" if finetune.precision == "float32" else finetune.precision
    return dataclasses.replace(
        finetune, precision=precision, init_from=finetune.init_from and _mixed(finetune.init_from)
    )


def field_names(record: Any, prefix: str = "") -> Iterator[str]:
    """The full names of all fields that can be set."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, CHOICES):
            yield from field_names(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _current(recipe: Recipe, name: str, setting: str) -> Any:
    """The present value of a field. Raises a UserError that names the nearest fields."""
    known = list(field_names(recipe))
    if name in known:
        value: Any = recipe
        for part in name.split("."):
            value = getattr(value, part)
        return value
    sections = [field for field in known if field.startswith(f"{name}.")]
    if sections and (name not in RENAMED or RENAMED[name].startswith(f"{name}.")):
        raise UserError(f"--set {setting}: {name} has several fields, set them one by one: {', '.join(sections)}")
    if name in RENAMED:
        raise UserError(f"--set {setting}: {name} is now called {RENAMED[name]}")
    near = [field for field in known if field.rpartition(".")[2] == name.rpartition(".")[2]]
    near = near or difflib.get_close_matches(name, known, 3) or known
    raise UserError(f"--set {setting}: no field {name}; did you mean {', '.join(near)}?")


def _note(changes: dict, name: str, value: Any) -> None:
    """Adds one change to the nested dictionary of changes."""
    *outer, inner = name.split(".")
    for part in outer:
        changes = changes.setdefault(part, {})
    changes[inner] = value


def _applied(record: Any, changes: dict) -> Any:
    values = {}
    for name, value in changes.items():
        current = getattr(record, name)
        nested = isinstance(value, dict) and dataclasses.is_dataclass(current)
        values[name] = _applied(current, value) if nested else value
    return dataclasses.replace(record, **values)


def _literal(text: str, current: Any, setting: str) -> Any:
    """The value of a setting, of the type of the present one."""
    if callable(current) or current is None:
        raise UserError(f"--set {setting}: a function or another fine-tuning is changed in a recipe file, not here")
    try:
        value = _parsed(text)
    except (SyntaxError, ValueError, TypeError):
        if not isinstance(current, str):
            raise UserError(
                f"--set {setting}: must be a Python literal, for example 0.1, 16, True or (1, 2), got {text}"
            ) from None
        value = text
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    family = CHOICES if isinstance(current, CHOICES) else type(current)
    if not isinstance(value, family) or isinstance(value, bool) != isinstance(current, bool):
        raise UserError(f"--set {setting}: must be of type {type(current).__name__}, got {type(value).__name__}")
    return value


def _parsed(text: str) -> Any:
    """A Python literal, or one of the trainable choices, such as FirstLast(15, 15)."""
    tree = ast.parse(text, mode="eval").body
    makers = {choice.__name__: choice for choice in CHOICES}
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in makers:
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
        return makers[tree.func.id](*(ast.literal_eval(argument) for argument in tree.args), **named)
    return ast.literal_eval(tree)
