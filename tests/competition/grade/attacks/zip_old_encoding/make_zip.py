"""A name in the encoding of old systems."""

import zipfile


def make(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.py", "class Model:\n    pass\n")
        archive.writestr("metadata", "")
        archive.writestr("caf_", "")
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data.replace(b"caf_", b"caf\x82"))
