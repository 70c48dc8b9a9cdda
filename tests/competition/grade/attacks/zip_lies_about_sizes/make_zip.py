"""An entry that declares one byte and unpacks to many."""

import zipfile


def make(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.py", "class Model:\n    pass\n")
        archive.writestr("metadata", "")
        archive.writestr("zeros", bytes(1_000_000))
        archive.getinfo("zeros").file_size = 1
