"""Records the committed model for test_released_characterisation.py. Run it once for each release.

python tests/submission/record_released.py dist/submission.zip
"""

import hashlib
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 24


def main(path: str) -> None:
    """Writes released.json: the entries of a zip of the committed model, and probabilities of synthetic images."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from helpers import load_module

    from common.files import write_json
    from competition.synthetic import draw_images

    with zipfile.ZipFile(path) as archive:
        order = archive.namelist()
        entries = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in sorted(order) if name != "model.py"}
    classifier = load_module(ROOT / "submission" / "model.py", "released").model(ROOT / "submission")
    probabilities = classifier.predict_proba(draw_images(IMAGES)).astype(float).round(5).tolist()
    out = Path(__file__).with_name("released.json")
    write_json(out, {"entries": entries, "order": order, "probabilities": probabilities})
    print(f"done: {out}")


if __name__ == "__main__":
    main(sys.argv[1])
