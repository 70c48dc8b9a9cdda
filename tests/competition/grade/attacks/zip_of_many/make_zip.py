"""More entries than any model has."""

import zipfile


def make(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.py", "class Model:\n    pass\n")
        archive.writestr("metadata", "")
        for number in range(10_001):
            archive.writestr(f"{number:x}", "")
