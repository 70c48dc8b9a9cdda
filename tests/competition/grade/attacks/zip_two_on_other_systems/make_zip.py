"""Two names that are equal where upper and lower case are the same."""

import zipfile


def make(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.py", "class Model:\n    pass\n")
        archive.writestr("metadata", "")
        archive.writestr("MODEL.py", "raise SystemExit")
