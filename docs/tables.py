"""Numbers and tables as text."""

from collections.abc import Iterable, Sequence


def percent(value: float, digits: int = 1) -> str:
    """A share as text, such as 94.5 %."""
    return f"{100 * value:.{digits}f} %"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table between line breaks."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
