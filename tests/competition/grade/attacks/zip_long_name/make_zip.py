"""A name that is longer than a file name can be."""

import zipfile


def make(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.py", "class Model:\n    pass\n")
        archive.writestr("metadata", "")
        archive.writestr("a" * 300, "")
