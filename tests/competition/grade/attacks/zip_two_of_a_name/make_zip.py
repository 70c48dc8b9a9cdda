"""Two files of one name: which one is used depends on the program that unpacks."""

import warnings
import zipfile


def make(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.py", "class Model:\n    pass\n")
        archive.writestr("metadata", "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr("model.py", "raise SystemExit")
