"""A name that starts at the root of the file system."""

import zipfile


def make(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.py", "class Model:\n    pass\n")
        archive.writestr("metadata", "")
        archive.writestr("/tmp/left-by-an-attack", "")
