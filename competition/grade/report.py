"""A grade as text for a terminal and as JSON."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from competition.grade.grade import Grade

LOG_LINES = 15  # of the log's end, shown if a check failed
FAILURES = "\nfailed checks:\n"  # in the log, above what the ingestion program prints of each failed check
ZIP_CHECKS = ("names", "unpacked size")  # that the server does not make
TIME_REASON = "ran longer"  # of the limits, the server has that of time


def report(grade: Grade) -> str:
    """Returns a grade as text: the checks, the notes, the log if a check failed, the scores and the verdict."""
    lines: list[str] = []
    width = max(len(check.name) for check in grade.checks)
    for check in grade.checks:
        lines += _hanging(f"{'pass' if check.passed else 'FAIL'}  {check.name:{width}}  ", check.reason)
        if check.fix and not check.passed:
            lines += _hanging(f"      {'':{width}}  → ", check.fix)
    lines += [f"note  {line}" for note in grade.notes for line in _printable_lines(note)]
    log = grade.log.rpartition(FAILURES)[0] or grade.log  # the checks are shown above
    if log.strip() and not grade.passed:
        log_lines = _printable_lines(log.strip())[-LOG_LINES:]
        lines += ["", "the end of its log:", *("  " + line for line in log_lines)]
    if grade.scores:
        lines += ["", *_class_table(grade)]
    lines += ["", *_summary(grade)]
    return "\n".join(lines)


def as_json(grade: Grade) -> dict[str, Any]:
    """Returns a grade as a dictionary for JSON. The log is included only if a check failed."""
    return {
        **asdict(grade),
        "passed": grade.passed,
        "verdict": verdict(grade),
        "log": "" if grade.passed else grade.log,
    }


def progress_on_terminal(time_limit: float) -> Callable[[float], None]:
    """Returns a `tick` for `grade` that shows the elapsed seconds on a terminal and nothing elsewhere."""

    def tick(elapsed: float) -> None:
        if elapsed > 2 and sys.stderr.isatty():
            print(f"\rgrading: {elapsed:.0f} s of at most {time_limit:g} s", end="", file=sys.stderr, flush=True)

    return tick


def clear_progress() -> None:
    """Moves the cursor back to the start of the progress line."""
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)


def _hanging(lead: str, text: str) -> list[str]:
    """Returns the lines of a text, the first after its lead, the others indented by the width of the lead."""
    first, *more = _printable_lines(text)
    return [(lead + first).rstrip(), *(" " * len(lead) + line for line in more)]


def _printable_lines(text: str) -> list[str]:
    """Returns the lines of an untrusted text, with escapes in place of terminal control characters."""
    return [
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        for line in text.split("\n")
    ]


def _class_table(grade: Grade) -> Iterator[str]:
    names, scores = grade.names, grade.scores
    width = max(map(len, names))
    yield f"{'':{width}}  precision  recall     F1   predicted as {' '.join(f'{n + 1:>4}' for n in range(len(names)))}"
    for row, name in enumerate(names):
        precision, recall, f1 = (scores[f"{key}_{row}"] for key in ("precision", "recall", "f1"))
        counts = " ".join(f"{scores[f'confusion_{row}_{column}']:>4}" for column in range(len(names)))
        yield f"{name:{width}}  {precision:9.3f}  {recall:6.3f}  {f1:5.3f}                {counts}"


def verdict(grade: Grade) -> str:
    """Returns what the server does with the submission: accepts it, refuses it, or perhaps accepts it.

    The server runs the same checks on the answers, and does not score if one of them fails. It does not have the checks
    of names and unpacked size in a zip, and perhaps other limits than this grader: then nobody but the server can tell.
    """
    failed = [check.name for check in grade.checks if not check.passed]
    if not failed:
        return "the server would accept it"
    if _is_stopped_here(grade):
        return f"not accepted here, but the server may score it: {', '.join(failed)}"
    return f"the server would not accept it: {', '.join(failed)}"


def _is_stopped_here(grade: Grade) -> bool:
    """Whether it was not run, or not run to its end, only because of rules that the server does not have."""
    failed = {check.name: check.reason for check in grade.checks if not check.passed}
    if set(failed) <= set(ZIP_CHECKS):
        return any(check.name == "metadata" and check.passed for check in grade.checks)  # so it can be unpacked
    return "limits" in failed and TIME_REASON not in failed["limits"]


def _summary(grade: Grade) -> Iterator[str]:
    yield f"verdict   {verdict(grade)}"
    if grade.scores:
        s = grade.scores
        interval = f"95 % interval {s['accuracy_low']:.1%} to {s['accuracy_high']:.1%}"
        yield f"accuracy  {s['accuracy']:.2%} on {s['images']} images ({interval}), macro F1 {s['macro_f1']:.3f}"
    elif grade.labelled:
        yield "accuracy  not measured, see the failed checks"
    else:
        yield f"accuracy  not measured: the {grade.images} images are synthetic; give labelled images with --data"
    if grade.seconds:
        yield (
            f"used      {grade.seconds:.1f} s and at most {grade.peak_mb:,.0f} MB "
            f"for {grade.images} images and all checks"
        )
