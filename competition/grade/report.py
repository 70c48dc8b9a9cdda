"""A grade as text for a terminal and as JSON."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from competition.grade.grade import Grade
from competition.package.archive import may_be_unpacked

LOG_LINES = 15  # of the log's end, shown if a check failed
FAILURES = "\nfailed checks:\n"  # in the log, above what the ingestion program prints of each failed check
WIDTH = 100  # columns of a terminal that the tables fit
NAME_COLUMNS = 30  # of a class name
CLASS_ROWS = 20  # of the table of classes
CONFUSION_ROWS = 10
CLASS_HEAD = "  precision  recall     F1  images"
COUNTS_HEAD = "  predicted as"
TIME_REASON = "ran longer"  # of the limits, the server has that of time
# Errors of a submission that wants to write to its program's folder, or the network: the server may allow that.
ISOLATED = re.compile("Read-only file system|Network is unreachable|name resolution|Name or service not known")
EXCEPTION = re.compile(r"^[\w.]{0,200}(?:Error|Exception)\b.*$", re.M)  # a line of a traceback, also of a cause
EXCEPTION_FIX = "the traceback is"  # of runner.py, for an exception of the submission
WARNING = re.compile(r"\b\w{0,40}Warning: .{1,200}")
WARNINGS = 3  # of the submission that are shown
OWN_WARNING = "Warning: predict returned"  # that of runner.py, which comes first


def report(grade: Grade) -> str:
    """Returns a grade as text: the checks, the notes, the log if a check failed, the scores and the verdict."""
    lines: list[str] = []
    width = max(len(check.name) for check in grade.checks)
    for check in grade.checks:
        lines += _hanging(f"{'pass' if check.passed else 'FAIL'}  {check.name:{width}}  ", check.reason)
        if check.fix and not check.passed:
            lines += _hanging(f"      {'':{width}}  → ", check.fix)
    lines += [f"note  {line}" for note in grade.notes for line in _printable_lines(note)]
    warnings = [*dict.fromkeys(WARNING.findall(grade.log))] if grade.passed else []  # else the log is shown
    warnings.sort(key=lambda text: not text.startswith(OWN_WARNING))
    lines += [f"note  its log has: {line}" for text in warnings[:WARNINGS] for line in _printable_lines(text)]
    log = grade.log.rpartition(FAILURES)[0] or grade.log  # the checks are shown above
    if log.strip() and not grade.passed:
        log_lines = _printable_lines(log.strip())[-LOG_LINES:]
        lines += ["", "the end of its log:", *("  " + line for line in log_lines)]
    if grade.scores:
        lines += ["", *_class_table(grade), *_confusions(grade)]
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
    """Yields the table of classes, of many only the worst, with the confusion counts if they fit the width."""
    names, scores, table = _short_names(grade), grade.scores, _counts(grade)
    every = range(len(names))
    rows = every if len(names) <= CLASS_ROWS else _worst_classes(grade, table)
    wide, cell = max(_columns(names[row]) for row in rows), max(4, len(str(scores["images"])))
    has_counts = wide + len(CLASS_HEAD) + len(COUNTS_HEAD) + (cell + 1) * len(names) <= WIDTH
    heads = COUNTS_HEAD + "".join(f" {number:>{cell}}" for number in every) if has_counts else ""
    if len(rows) < len(names):
        yield f"the {len(rows)} classes with the lowest F1:"
    yield " " * wide + CLASS_HEAD + heads
    for row in rows:
        counts = table[row]
        precision, recall, f1 = (scores[f"{key}_{row}"] for key in ("precision", "recall", "f1"))
        line = f"{_padded(names[row], wide)}  {precision:9.3f}  {recall:6.3f}  {f1:5.3f}  {sum(counts.values()):6}"
        cells = "".join(f" {counts.get(column, 0):>{cell}}" for column in every) if has_counts else ""
        shown = f"{row:>{len(COUNTS_HEAD)}}{cells}" if has_counts else ""  # the class numbers of `predict`
        yield line + shown
    if len(rows) < len(names):
        yield f"… and {len(names) - len(rows)} more classes, see --html"


def _worst_classes(grade: Grade, table: list[dict[int, int]]) -> list[int]:
    """Returns the classes of the lowest F1. Those that have no image come last."""
    every = range(len(grade.names))
    return sorted(every, key=lambda row: (not table[row], grade.scores[f"f1_{row}"]))[:CLASS_ROWS]


def _confusions(grade: Grade) -> Iterator[str]:
    """Yields the pairs of a true and a wrongly predicted class with the most images."""
    names, table = _short_names(grade), _counts(grade)
    pairs = [(-count, row, column) for row, counts in enumerate(table) for column, count in counts.items()]
    wrong = sorted(pair for pair in pairs if pair[1] != pair[2])
    if not wrong:
        return
    yield from ("", "largest confusions:")
    wide = max(_columns(names[row]) for _, row, _ in wrong[:CONFUSION_ROWS])
    for count, row, column in wrong[:CONFUSION_ROWS]:
        yield f"  {-count:>5} of {sum(table[row].values()):>5}  {_padded(names[row], wide)}  taken for  {names[column]}"
    if len(wrong) > CONFUSION_ROWS:
        yield f"  … and {len(wrong) - CONFUSION_ROWS} more pairs, see --html"


def _counts(grade: Grade) -> list[dict[int, int]]:
    """Returns for each class how many of its images were predicted as each class that occurs."""
    table: list[dict[int, int]] = [{} for _ in grade.names]
    for key, count in grade.scores.items():
        name, *places = key.split("_")
        if name == "confusion" and count:
            table[int(places[0])][int(places[1])] = int(count)
    return table


def _short_names(grade: Grade) -> list[str]:
    """Returns the class names, the long ones shortened in the middle, because names often differ at their end."""
    return [_shortened(line) for name in grade.names for line in _printable_lines(name)[:1]]


def _shortened(name: str) -> str:
    if _columns(name) <= NAME_COLUMNS:
        return name
    start, end = name[:NAME_COLUMNS], name[-NAME_COLUMNS:]
    while _columns(start) > NAME_COLUMNS // 2:
        start = start[:-1]
    while _columns(end) >= NAME_COLUMNS // 2:
        end = end[1:]
    return f"{start}…{end}"


def _columns(text: str) -> int:
    """Returns how many columns of a terminal a text takes. Letters of Chinese, Japanese and Korean take two."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - _columns(text))


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
    """Whether each failed check is a rule that the server does not have, or says that such a rule stopped it."""
    if may_be_unpacked(grade.checks):
        return True
    failed = {check.name: check.reason for check in grade.checks if not check.passed}
    causes = {name: reason for name, reason in failed.items() if name != "scoring"}  # which repeats the others
    raised = {check.name for check in grade.checks if check.fix.startswith(EXCEPTION_FIX)}  # its log says more
    stopped = failed.get("limits", TIME_REASON)
    if TIME_REASON not in stopped:
        return all(stopped in reason for reason in causes.values())
    exceptions = "\n".join(EXCEPTION.findall(grade.log))
    said = {name: f"{reason}\n{exceptions if name in raised else ''}" for name, reason in causes.items()}
    return bool(causes) and all(ISOLATED.search(text) for text in said.values())


def _summary(grade: Grade) -> Iterator[str]:
    yield f"verdict   {verdict(grade)}"
    if grade.scores:
        s = grade.scores
        interval = f"95 % interval {s['accuracy_low']:.1%} to {s['accuracy_high']:.1%}"
        yield f"accuracy  {s['accuracy']:.2%} on {s['images']} images ({interval}), macro F1 {s['macro_f1']:.3f}"
        if grade.trained_on:
            seen = f"{grade.trained_on} of these {s['images']:.0f} images"
            yield f"warning   the model was trained on {seen}, so the accuracy is too high"
    elif grade.labelled:
        yield "accuracy  not measured, see the failed checks"
    else:
        yield f"accuracy  not measured: the {grade.images} images are synthetic; give labelled images with --data"
    if grade.seconds:
        yield (
            f"used      {grade.seconds:.1f} s and at most {grade.peak_mb:,.0f} MB "
            f"for {grade.images} images and all checks"
        )
    if "precision" in grade.used:
        yield f"precision {grade.used['precision']}, on this processor"
