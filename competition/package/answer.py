"""Decides what the answers of a Kaggle competition are, from the names of the columns and the sample's own values.

The sample rarely says what its numbers mean. They are read as positions, as positions from 1, or as class names only if
the class names and the sample's own values leave no other reading; otherwise the user has to say it with --answer.
"""

import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from common.errors import UserError
from common.labels import MISSING
from competition.package.class_names import shortened

KINDS = ("names", "positions", "one-based", "probability")  # the values of --answer; also probability:CLASS
MAX_DIGITS = 9
# Words beside the class in the name of a column that takes its probability. Any other may negate it, as in not_cat.
NEUTRAL = {"a", "an", "answer", "class", "confidence", "has", "is", "label", "likelihood", "of", "p", "pred"}
_MAY_FOLLOW = "may follow those in the class names, which are in another order"
_BEGIN_WITH_THEM = "begin the names of the class folders with their numbers and train again"
NEUTRAL |= {"predicted", "prediction", "prob", "proba", "probability", "score", "target", "the", "y"}
SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda name: unicodedata.normalize("NFC", name),
    lambda name: unicodedata.normalize("NFD", name),
    lambda name: name.replace(" ", "_"),
    lambda name: name.replace("_", " "),
    lambda name: re.sub(r"^([0-9]+)\.0+$", r"\1", name),  # 2.0, as a table with empty cells has it
)
# Values that stand for no answer, in lower case.
PLACEHOLDERS = frozenset((*MISSING, "-1", "-1.0", "0.0", "unknown", "unlabeled", "placeholder", "dummy", "todo", "tbd"))


@dataclass(frozen=True)
class Answer:
    """What is written for one image.

    kind: "names", "positions" or "one-based" if a column takes the class, "probability" if one column takes the
        probability of one of two classes, "probabilities" if there is one column for each class.
    labels: what is written for each class, in the model's order; empty if probabilities are written.
    columns: the class of each column of probabilities, as a position in the model's order.
    top: how many labels a cell takes, the most probable first (MAP@k).
    """

    kind: str
    labels: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()
    top: int = 1


def parse_told(told: str | None, names: Sequence[str]) -> tuple[str, str]:
    """Splits the value of --answer.

    Args:
        told: one of `KINDS`, probability:CLASS, or None.
        names: the model's class names.

    Returns:
        (kind, class); each is "" if it is not given.

    Raises:
        UserError: it is something else, or the class is none of the model's.
    """
    kind, _, named = (told or "").partition(":")
    if told and (kind not in KINDS or (named and kind != "probability")):
        raise UserError(f"--answer must be {', '.join(KINDS)} or probability:CLASS, got {told}; give one of these")
    if named and named not in names:
        example = f"for example --answer probability:{shlex.quote(names[0])}"
        raise UserError(f"--answer probability:CLASS must name one of the model's classes, got {named}; {example}")
    return kind, named


def match_columns(columns: Sequence[str], names: Sequence[str], told: str | None = None) -> Answer:
    """Decides which class each column of probabilities is.

    A column is called as its class, or has its number; all may have the same prefix or suffix.

    Args:
        columns: names of the columns.
        names: the model's class names.
        told: what the answers are, if the user says it: one of `KINDS`, or probability:CLASS.

    Raises:
        UserError: the columns are not the classes, or are numbers that may mean two things.
    """
    kind, _ = parse_told(told, names)
    if kind == "probability":
        raise UserError(f"--answer probability needs one column of answers, the sample has {len(columns)}")
    if not columns:
        raise UserError("several columns of answers need a header that names their classes; add it")
    names = _spelled(set(columns), names)
    kinds = [kind] if kind else ["names"] if _are_numbers(names) else ["names", "positions", "one-based"]
    for option in kinds:
        found = _positions_of(columns, names, option)
        if found is None:
            continue
        out_of_order = option != "names" and _are_out_of_order(names)
        if kind or not (out_of_order or _is_contradicted(columns, [names[place] for place in found])):
            return Answer("probabilities", columns=found)
    different = sorted(set(columns) ^ set(names))[:5]
    fix = _fix(columns, names)
    numbered = [] if kind else [option for option in KINDS[1:3] if _positions_of(columns, names, option)]
    if numbered and _are_out_of_order(names):
        given = " or ".join(f"--answer {option}" for option in numbered)
        fix = f"the numbers of the columns {_MAY_FOLLOW}: if so, {_BEGIN_WITH_THEM}; if not, give {given}"
    elif numbered:
        fix = "if its columns are numbered by position, give --answer positions or --answer one-based"
    raise UserError(f"its columns and the model's classes differ in {', '.join(different) or 'number'}; {fix}")


def match_values(values: set[str], column: str, names: Sequence[str], told: str | None = None) -> Answer:
    """Decides what a single column of answers takes.

    Args:
        values: the sample's values in this column.
        column: its name, or "".
        names: the model's class names.
        told: see `match_columns`.

    Raises:
        UserError: the values are neither classes nor numbers, or they may mean two things.
    """
    kind, named = parse_told(told, names)
    if kind == "probability":
        return _told_probability(values, column, names, named)
    cells = [[value] if value in names else value.split() for value in values]
    combined = [name for name in names if len(name.split()) > 1 and _are_numbers(name.split())]
    if not kind and combined and any(len(cell) > 1 and _are_numbers(cell) for cell in cells):
        raise UserError(
            f"its cells list several right labels, as the class {combined[0]!r} does, and the model gives one; if they "
            "are MAP@k, give --answer positions or --answer one-based"
        )
    if any(len(cell) > 1 for cell in cells):
        words = {word for cell in cells for word in cell}
        if words <= set(_spelled(words, names)) or _are_numbers(words):
            top = _list_length(cells, names)
            answer = _match_labels(words, column, names, kind)
            if any(" " in label for label in answer.labels):
                raise _space_in_list(answer.labels)
            return replace(answer, top=top)
        spaced = [name for name in names if " " in name]
        if any(value.startswith(f"{name} ") or value.endswith(f" {name}") for name in spaced for value in values):
            raise _space_in_list(spaced)
    return _match_labels(values, column, names, kind)


def _match_labels(values: set[str], column: str, names: Sequence[str], kind: str) -> Answer:
    """Decides what single labels are, or one column of numbers from 0 to 1."""
    names = _spelled(values, names)
    if kind:
        return _as_told(values, names, kind)
    if values == {""}:
        options = ("names", "positions", "one-based", *("probability",) * (len(names) == 2))
        raise _undecided(values, column, "are empty, so they do not tell what the answers are", options)
    if len(names) == 2 and _are_probabilities(values):
        return _binary(values, column, names)
    if column in names and _are_probabilities(values - set(names)) and not values <= set(names):
        raise UserError(f"its column {column} is one of the model's {len(names)} classes; all of them are required")
    if values <= set(names):
        return Answer("names", tuple(names))
    if _are_numbers(values) and max(map(int, values)) <= max(len(names), *_numbers(names)):
        return _numbered(values, column, names)
    last = len(names) - 1
    others = [value for value in values - set(names) if not is_number(value) or int(value) > last]
    if not others:
        both = f"got {min(values & set(names))!r} and {min(values - set(names))!r}"
        required = "must all be classes, or all be numbers"
        raise UserError(f"the values of {_called(column)} {required}, {both}; repair the sample")
    other = min(others)
    fix = _fix(values, names)
    if len(values) == 1 and other.lower() in PLACEHOLDERS:
        given = " or ".join(f"--answer {option}" for option in KINDS[:3])
        fix = f"if it is a placeholder, give {given}; if not: {fix}"
    raise UserError(
        f"the values of {_called(column)} must be the model's classes or numbers from 0 to {last}, got {other!r}; {fix}"
    )


def _fix(others: Iterable[str], names: Sequence[str]) -> str:
    """What to do if a sample has other classes than the model."""
    folded = {name.casefold(): name for name in names}
    alike = [other for other in sorted(set(others) - set(names)) if other.casefold() in folded]
    if alike:
        name = folded[alike[0].casefold()]
        return f"{alike[0]} and the model's {name} differ only in upper and lower case: rename the folder, train again"
    if set(others) & set(names):
        return "train on the competition's classes"
    return f"the model has the classes {shortened(names)}; build with --run RUN if you trained one"


def _spelled(values: set[str], names: Sequence[str]) -> tuple[str, ...]:
    """The class names as the sample spells them, if one of its values shows that: see `SPELLINGS`.

    Decimal numbers become whole numbers if the sample has no decimal number.
    """
    names = tuple(names)
    for spelling in SPELLINGS:
        spelled = tuple(map(spelling, names))
        shown = values & (set(spelled) - set(names)) or (_are_numbers(spelled) and _are_numbers(values))
        if shown and len(set(spelled)) == len(names):
            names = spelled
    return names


def _list_length(cells: Sequence[Sequence[str]], names: Sequence[str]) -> int:
    """How many labels each cell lists."""
    lengths = {len(cell) for cell in cells}
    if len(lengths) > 1:
        got = f"{min(lengths)} and {max(lengths)}"
        raise UserError(f"each cell must list the same number of labels, got {got}; several right labels are no MAP@k")
    for cell in cells:
        if len(set(cell)) < len(cell) or len(cell) > len(names):
            raise UserError(
                f"each cell must list different classes of the model's {len(names)}, got {' '.join(cell)!r}; train on "
                "the competition's classes, or repair the sample"
            )
    return lengths.pop()


def _space_in_list(names: Sequence[str]) -> UserError:
    name = next(name for name in names if " " in name)
    return UserError(
        f"its cells list several labels separated by spaces, so a class name must have none, got {name!r}; rename the "
        "class folders as the competition calls them, and train again"
    )


def _numbered(values: set[str], column: str, names: Sequence[str]) -> Answer:
    """Decides what whole numbers are that are not simply the class names."""
    numbers, count = {int(value) for value in values}, len(names)
    if _are_numbers(names):
        written = _written(_numbers(names), values)
        if numbers <= set(_numbers(names)) and len(set(written)) == count:  # 1 for the class 01
            return Answer("names", written)
        what = "are none of the class names: they may be placeholders or positions"
        raise _undecided(values, column, what, ("names", "positions", "one-based"))
    own = own_numbers(names)
    if numbers == {0} and own != list(range(count)):
        names_have = "other numbers, or the same in another order" if own else "no numbers that say which class is 0"
        what = f"may be placeholders, and the class names have {names_have}"
        raise _undecided(values, column, what, ("names", "positions", "one-based"))
    if min(numbers) == 0 and max(numbers) < count:
        return _in_order("positions", values, column, names)
    if min(numbers) > 0 and max(numbers) == count:
        return _in_order("one-based", values, column, names)
    if min(numbers) == 0:
        raise UserError(
            f"the values of {_called(column)} must be numbers from 0 to {count - 1} or from 1 to {count}, "
            f"got 0 and {max(numbers)}; {_fix(values, names)}"
        )
    raise _undecided(values, column, "do not tell whether they count from 0 or from 1", ("positions", "one-based"))


def _binary(values: set[str], column: str, names: Sequence[str]) -> Answer:
    """Decides what numbers from 0 to 1 are if there are two classes: class numbers, or a probability."""
    named = _named_class(column, names)
    if not _are_numbers(values):
        if named is None:
            raise _undecided_class(values, column, names)
        return Answer("probability", columns=(named,))
    options = ("probability",) if named == 0 else ("positions", "one-based", "probability")
    what = f"may be class numbers, or the probability of {names[1 if named is None else named]}"
    raise _undecided(values, column, what, ("names",) * _are_numbers(names) + options)


def _in_order(kind: str, values: set[str], column: str, names: Sequence[str]) -> Answer:
    """Positions, unless they may be the numbers in the class names, which are in another order."""
    if _are_out_of_order(names):
        raise UserError(
            f"the numbers of {_called(column)} ({', '.join(sorted(values)[:3])}) {_MAY_FOLLOW} ({shortened(names)}): "
            f"if so, {_BEGIN_WITH_THEM}; if they are positions in this order, give --answer {kind}"
        )
    first = int(kind == "one-based")
    return Answer(kind, _written(range(first, first + len(names)), values))


def own_numbers(names: Sequence[str]) -> list[int]:
    """The numbers that the class names start or end with, in their order; [] if they are not all different."""
    for pattern in (r"^[0-9]{1,9}(?![0-9])", r"(?<![0-9])[0-9]{1,9}$"):
        found = [re.search(pattern, name) for name in names]
        numbers = [int(one[0]) for one in found if one]
        if len(set(numbers)) == len(names):
            return numbers
    return []


def _are_out_of_order(names: Sequence[str]) -> bool:
    """Whether the class names have the numbers from 0 or 1 in another order, such as ant_1, bee_2, zebra_0."""
    own = own_numbers(names)
    return own != sorted(own) and sorted(own) in [list(range(first, first + len(names))) for first in (0, 1)]


def _named_class(column: str, names: Sequence[str]) -> int | None:
    """The one of two classes that the column is called after, or 1 if the classes are 0 and 1; else None.

    Beside the class, the column may have words of `NEUTRAL` only, so that it is None for un-healthy and cat_absence.
    """
    for place, name in enumerate(names):
        if _folded(name) == _folded(column):
            return place
    rests = [_rest(_words(column), _words(name)) for name in names]
    called = [place for place, rest in enumerate(rests) if rest is not None and rest <= NEUTRAL]
    if called:
        return max(called, key=lambda place: len(_words(names[place])))  # hot dog rather than dog
    return _numbers(names).index(1) if sorted(_numbers(names)) == [0, 1] else None


def _rest(words: list[str], name: list[str]) -> set[str] | None:
    """The words beside those of a class name; None if these are not among them, in a row."""
    for start in range(len(words) - len(name) + 1):
        if words[start : start + len(name)] == name:
            return {*words[:start], *words[start + len(name) :]}
    return None


def _words(text: str) -> list[str]:
    return re.split(r"[\W_]+", _folded(text))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _told_probability(values: set[str], column: str, names: Sequence[str], named: str) -> Answer:
    """The probability of the class that the user names; else of that of the column, else of the second class."""
    if len(names) != 2 or not _are_probabilities(values - {""}):
        raise UserError(f"--answer probability needs two classes and numbers from 0 to 1, got {len(names)} classes")
    found = names.index(named) if named else _named_class(column, names)
    if found is None and any(_rest(_words(column), _words(name)) is not None for name in names):  # not_cat
        raise _undecided_class(values, column, names)
    return Answer("probability", columns=(1 if found is None else found,))


def _as_told(values: set[str], names: Sequence[str], kind: str) -> Answer:
    """What --answer says, unless the sample contradicts it. Empty cells are placeholders.

    So is one of `PLACEHOLDERS` in all cells.
    """
    values = values - {""}
    if len(values) == 1 and not values <= set(names) and next(iter(values)).lower() in PLACEHOLDERS:
        values = set()
    if kind == "names":
        other = sorted(value for value in values - set(names) if not is_number(value))
        if other:
            raise UserError(f"--answer names needs values that are classes of the model, got {other[0]!r}")
        return Answer(kind, tuple(names))
    numbers = range(len(names)) if kind == "positions" else range(1, len(names) + 1)
    other = sorted(value for value in values if not is_number(value) or int(value) > numbers[-1])
    if other:
        raise UserError(f"--answer {kind} needs whole numbers up to {numbers[-1]}, got {other[0]!r}")
    return Answer(kind, _written(numbers, values))


def _called(column: str) -> str:
    return f"the column {column}" if column else "its column of answers"


def _undecided(values: set[str], column: str, what: str, options: Sequence[str]) -> UserError:
    shown = ", ".join(sorted(values)[:3])
    fix = " or ".join(f"--answer {option}" for option in options)
    return UserError(f"the values of {_called(column)} ({shown}) {what}; give {fix}")


def _undecided_class(values: set[str], column: str, names: Sequence[str]) -> UserError:
    what = f"are a probability, of {names[0]} or of {names[1]}"
    return _undecided(values, column, what, [f"probability:{shlex.quote(name)}" for name in names])


def _positions_of(columns: Sequence[str], names: Sequence[str], kind: str) -> tuple[int, ...] | None:
    """The classes of columns that are called or numbered as the classes, or None if they are not."""
    if len(columns) != len(names) or len(set(columns)) != len(columns):
        return None
    if kind == "names":
        pairs = {(column.removesuffix(names[0]), "") for column in columns if column.endswith(names[0])}
        pairs |= {("", column.removeprefix(names[0])) for column in columns if column.startswith(names[0])}
        for before, after in pairs:
            places = {f"{before}{name}{after}": place for place, name in enumerate(names)}
            if set(places) == set(columns):
                return tuple(places[column] for column in columns)
    wanted = _numbers(names) if kind == "names" else [number + (kind == "one-based") for number in range(len(names))]
    parts = [re.fullmatch(r"(.*?)([0-9]{1,9})", column) for column in columns]
    found = [int(part[2]) for part in parts if part]
    prefixes = {part[1] for part in parts if part}
    if len(prefixes) != 1 or len(set(found)) != len(names) or sorted(found) != sorted(wanted):
        return None
    return tuple(wanted.index(number) for number in found)


def _is_contradicted(columns: Sequence[str], classes: Sequence[str]) -> bool:
    """Whether a column is called as another class than its own, or as its own with another number."""
    for column, name in zip(columns, classes, strict=True):
        if column != name and column in classes:
            return True
        parts = re.fullmatch(r"(.+?)[\W_]*([0-9]{1,9})", name)
        word = re.escape(parts[1]) if parts else ""
        number = re.fullmatch(rf"(?:.*[\W_])?{word}[\W_]*([0-9]{{1,9}})", column, re.I) if parts else None
        if parts and number and int(number[1]) != int(parts[2]):
            return True
    return False


def is_number(text: str) -> bool:
    """Whether a text is a whole number from 0, in ASCII digits."""
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def _are_numbers(texts: Sequence[str] | set[str]) -> bool:
    return all(map(is_number, texts))


def _numbers(names: Sequence[str]) -> list[int]:
    """The class names as numbers, or [-1] if they are none."""
    return [int(name) for name in names] if _are_numbers(names) else [-1]


def _are_probabilities(values: set[str]) -> bool:
    try:
        return all(0 <= float(value) <= 1 for value in values)
    except ValueError:
        return False


def _written(numbers: Iterable[int], values: set[str]) -> tuple[str, ...]:
    """Numbers in the form of the sample's values: with leading zeros if these have them."""
    widths = {len(value) for value in values}
    padded = len(widths) == 1 and any(value.startswith("0") and len(value) > 1 for value in values)
    return tuple(f"{number:0{max(widths) if padded else 1}d}" for number in numbers)
