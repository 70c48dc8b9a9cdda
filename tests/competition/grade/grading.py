"""What the grader's tests share: grading a stub, and the command line in a process of its own."""

import re

from helpers import ROOT, python, stub_zip

from competition.grade.grade import Rules, grade
from competition.grade.report import report

CONSTRUCTOR = "import and constructor"


def failed_checks(result):
    """Name → failed check. The report must name each with its reason and fix, and the verdict must list them."""
    text = report(result)
    checks = {check.name: check for check in result.checks if not check.passed}
    for check in checks.values():
        assert re.search(rf"^FAIL  {re.escape(check.name)} ", text, re.MULTILINE)
        assert check.reason
        first = check.reason.split("\n")[0]
        assert first in text or not first.isprintable()  # control characters are escaped
        assert check.fix
        assert f"→ {check.fix}\n" in text
    if checks:
        verdict = "(the server would not accept it|not accepted here, but the server may score it)"
        assert re.search(f"^verdict   {verdict}: {re.escape(', '.join(checks))}$", text, re.MULTILINE)
    assert result.passed == (not checks)
    return checks


def graded(folder, source, layout="an2dl2024", **limits):
    """The failed checks of a stub. The default is the contract of 2024, which needs no TensorFlow."""
    return failed_checks(grade(stub_zip(folder / "stub.zip", source), rules=Rules(layout=layout, **limits)))


def command(*arguments, **options):
    """Runs grade_submission.py in a process of its own."""
    return python(ROOT / "grade_submission.py", *arguments, isolated=False, **options)
