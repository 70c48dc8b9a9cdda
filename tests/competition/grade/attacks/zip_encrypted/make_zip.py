"""An entry that is declared as encrypted."""

import zipfile


def make(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.py", "class Model:\n    pass\n")
        archive.writestr("metadata", "")
        archive.writestr("secret", "x")
        archive.getinfo("secret").flag_bits |= 1
