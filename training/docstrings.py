"""What a recipe's docstring says, paragraph by paragraph."""

import re


def paragraph(docstring, label):
    """What a docstring says behind `label: `, on one line; "" where it says nothing."""
    found = re.search(rf"^{label}: (.*?)(?:\n\s*\n|\Z)", docstring or "", re.DOTALL | re.MULTILINE)
    return " ".join(found.group(1).split()) if found else ""
