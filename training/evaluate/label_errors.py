"""Likely label errors, as a table and a page of thumbnails.

Source: C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70, 2021; the package cleanlab.
"""

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import atomically, write_csv
from common.folders import printable
from common.images import Images
from training.auto import choices
from training.auto.heldout import held_out_probabilities
from training.data.split import split_fold
from training.evaluate.mistakes import read_predictions
from training.fit.features import FeatureSpec, tta_features
from training.fit.precision import fastest
from training.inputs import Inputs, load_inputs
from training.model.trainable import freeze

FOLDS = 5
THUMBNAIL = 160  # pixels, the longer side
COLUMNS = ("path", "given", "likely", "probability_of_given", "probability_of_likely")
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Likely label errors</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(11em, 1fr)); gap: 1.2em; }}
figure {{ margin: 0; overflow-wrap: anywhere; }}
img {{ display: block; max-width: 100%; margin-bottom: .3em; }}
</style>
<h1>Likely label errors</h1>
<p>{count} of {total} images, the most suspicious first. Look at each of them: an image that is hard to classify is
listed as well.</p>
<main>
{figures}
</main>
</html>
"""


def label_errors(inputs: Inputs, folder: Path | None, out: Path, cache: Path) -> list[str]:
    """Lists images whose label is likely wrong, by out-of-fold predictions.

    Args:
        inputs: the labelled images.
        folder: a cross-validation of them, or a finished run, whose predictions of its validation set are used.
            None: logistic regression on features of the pretrained backbone in five folds.
        out: the page, an HTML file. A CSV file of the same name is written beside it.
        cache: folder of cached features.

    Returns:
        One line for each likely error, the most suspicious first.

    Raises:
        UserError: cleanlab is not installed, `out` is no name of a page, or its table would replace `inputs.labels`;
            see `load_inputs` and `mistakes.read_predictions`.
    """
    find, table = _find_label_issues(), out.with_suffix(".csv")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out must be the name of a page, such as label_errors.html, got {out}")
    if inputs.labels and Path(inputs.labels).resolve() == table.resolve():
        raise UserError(f"--out {out} would replace --labels {inputs.labels} by its table; give another --out")
    if folder is None:
        images = load_inputs(inputs)[0]
        rows, labels, probabilities = np.arange(len(images)), images.labels, _out_of_fold(images, inputs, cache)
    else:
        images, rows, labels, probabilities = read_predictions(folder, inputs)
    # One process, because a fork of a process in which TensorFlow has threads may never end.
    found = find(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    issues = [_issue(images, int(rows[place]), probabilities[place], Path(inputs.data)) for place in found]
    write_csv(table, COLUMNS, issues)
    figures = "\n".join(_figure(images, int(rows[place]), issue) for place, issue in zip(found, issues, strict=True))
    page = PAGE.format(count=len(issues), total=len(labels), figures=figures)
    atomically(out, lambda temporary: temporary.write_text(page, "utf-8", "backslashreplace"))
    return [f"{i['path']}: given {i['given']}, likely {i['likely']} ({i['probability_of_likely']:.0%})" for i in issues]


def _find_label_issues() -> Any:
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise UserError("label-errors needs the package cleanlab; pip install cleanlab") from error
    return find_label_issues


def _out_of_fold(images: Images, inputs: Inputs, cache: Path) -> np.ndarray:
    """The probabilities of a quick model in five folds: float32 [n, classes]."""
    from training.fit.finetune import make_backbone

    least = int(np.bincount(images.labels[np.unique(images.groups)]).min())  # a copy would teach the wrong label
    if least < 2:
        raise UserError(f"label-errors needs at least two different images of each class, got {least}; add images")
    base = choices.base_recipe({}, fastest())
    backbone = make_backbone(base, inputs.backbone_weights)
    freeze(backbone)
    spec = FeatureSpec(choices.INPUT_SIZE, precision=base.head.feature_precision)
    features = tta_features(cache, backbone, choices.LAYERS, images.images, spec, choices.MIRRORED)
    probabilities = np.zeros((len(images), len(images.names)), np.float32)
    folds = min(FOLDS, least)
    for fold in range(folds):
        rows = split_fold(images.labels, folds, fold, 0, images.names, images.groups)
        probabilities[rows[1]] = held_out_probabilities(base, base.head, features, images, rows)
    return probabilities


def _issue(images: Images, row: int, probabilities: np.ndarray, data: Path) -> dict[str, Any]:
    """A row of the table. Paths are relative to `data`, those of validation images are whole."""
    path = Path(images.paths[row])
    given, likely = int(images.labels[row]), int(probabilities.argmax())
    return {
        "path": printable(path.relative_to(data).as_posix() if path.is_relative_to(data) else path),
        "given": images.names[given],
        "likely": images.names[likely],
        "probability_of_given": round(float(probabilities[given]), 4),
        "probability_of_likely": round(float(probabilities[likely]), 4),
    }


def _figure(images: Images, row: int, issue: dict[str, Any]) -> str:
    image, buffer = Image.fromarray(images.images[row]), io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, "JPEG", quality=85)
    source = base64.b64encode(buffer.getvalue()).decode()
    given, likely, path = (html.escape(str(issue[name])) for name in ("given", "likely", "path"))
    return (
        f'<figure><img alt="{path}" src="data:image/jpeg;base64,{source}"><figcaption>'
        f"given <b>{given}</b> ({issue['probability_of_given']:.0%})<br>"
        f"likely <b>{likely}</b> ({issue['probability_of_likely']:.0%})<br><small>{path}</small></figcaption></figure>"
    )
