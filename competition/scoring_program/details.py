"""detailed_results.html: one page with the results of a submission. No script, no external address, light and dark.

If single images may be shown, the page has the calibration diagram, the wrong predictions with their images, and a list
of them if the names of the files are known. Otherwise the labels are hidden: the page then depends on them only through
the scores. The calibration diagram is left out too, because a submission chooses its probabilities, and could learn
from each bin whether one image is correct.
"""

import base64
import html
import os

import numpy as np

BINS = 10  # of the calibration diagram
MISTAKES = 15  # how many are shown with their images
LISTED = 500  # mistakes in the list of files
CONFUSIONS = 15  # rows of the table above the matrix
MAX_MATRIX = 200  # classes of a confusion matrix
WHOLE = 40  # rows of a table that is shown in its whole height

STYLE = """
:root { color-scheme: light dark;
  --ink: #1a1f1c; --soft: #5b655f; --paper: #fff; --line: #d9dfdb; --leaf: #1d7a46; --wrong: #b3372b;
  --right-rgb: 29, 122, 70; --wrong-rgb: 179, 55, 43; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ece9; --soft: #a3ada7; --paper: #131715; --line: #323a35; --leaf: #5cc58b; --wrong: #f0877b;
    --right-rgb: 92, 197, 139; --wrong-rgb: 240, 135, 123; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); }
.big { font-size: 2.6rem; font-weight: 700; line-height: 1.1; }
.refusal { overflow-wrap: anywhere; border-left: .3rem solid var(--wrong); padding: .5rem 1rem; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0; }
.facts b { display: block; font-size: 1.15rem; }
.scroll { overflow: auto; max-height: 85vh; } .whole { max-height: none; }
.scroll tr:first-child th { position: sticky; top: 0; z-index: 1; background: var(--paper); }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child, .texts th, .texts td { text-align: left; }
.texts .number { text-align: right; }
.texts td, .classes td:first-child { overflow-wrap: anywhere; min-width: 4rem; } .texts td.number { min-width: 0; }
.matrix td { min-width: 2.1rem; padding: .2rem .3rem; border-right: 1px solid var(--line); font-size: .8rem; }
.matrix th { font-size: .8rem; font-weight: 400; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.matrix th:first-child { position: sticky; left: 0; z-index: 1; max-width: 14rem; background: var(--paper); }
.matrix tr:first-child th { padding: .25rem .1rem; vertical-align: bottom; }
.matrix tr:first-child th:first-child { z-index: 2; padding-left: .5rem; white-space: normal; }
.matrix th span { display: inline-block; max-height: 10rem; overflow: hidden; text-overflow: ellipsis;
  writing-mode: vertical-rl; transform: rotate(180deg); }
@media (max-width: 37rem) {
  th, td { padding: .25rem .3rem; font-size: .85rem; }
  .matrix td { min-width: 1.8rem; padding: .2rem; }
  .matrix th:first-child { max-width: 7rem; } .matrix th span { max-height: 7rem; }
  .files tr { display: grid; grid-template-columns: 1fr 1fr 5.5rem; border-bottom: 1px solid var(--line); }
  .files tr:first-child { position: sticky; top: 0; background: var(--paper); }
  .files th, .files td { border: 0; } .files th:first-child, .files td:first-child { grid-column: 1 / -1; }
}
svg { display: block; width: 100%; height: auto; max-width: 34rem; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; padding: 0;
  list-style: none; }
.mistakes img { width: 100%; display: block; border-radius: .25rem; }
.mistakes span { display: block; margin-top: .25rem; overflow-wrap: anywhere; font-size: .85rem; line-height: 1.3; }
"""
HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>Detailed results</title>
<style>{}</style>
</head>
<body>
<h1>Detailed results</h1>
"""
TOO_LARGE = '<p class="soft">The confusion matrix is not shown, because there are too many classes.</p>\n'
HIDDEN = '<p class="soft">Calibration and mistakes are not shown, because the labels of the images are hidden.</p>\n'


class Results:
    """Everything that the page shows.

    Attributes:
        names: class names.
        labels: int64 [n].
        thumbnails: folder with 00000.jpg, 00001.jpg, …; None if no single image may be shown.
        files: name of each image file; empty if they may not be shown or are not known.
        predictions: int64 [n], or None if nothing was scored.
        probabilities: float32 [n, classes], or None.
        counts: int64 [classes, classes], what `score.confusion` returned, or None if nothing was scored.
        scores: what `score.scores` returned; empty if nothing was scored.
        checks: (name, passed, reason, fix) of each check.
        used: "images", "seconds", "peak_mb", "precision" (a text) and "trained_on" (how many images the model was
            trained on, which only the local grader tells), as far as they are known.
        refusal: why nothing was scored, or "".
    """

    def __init__(self, names, labels, thumbnails, files=()):
        self.names, self.labels, self.thumbnails, self.files = names, labels, thumbnails, files
        self.predictions = self.probabilities = self.counts = None
        self.scores, self.checks, self.used, self.refusal = {}, [], {}, ""

    @property
    def confidence(self):
        """float32 [n], the probability of each predicted class, or None."""
        if self.probabilities is None:
            return None
        return self.probabilities[np.arange(len(self.labels)), self.predictions]


def page(results):
    """The whole page as text, from `Results`."""
    if results.refusal:
        parts = ['<p class="refusal">Not scored: {}.</p>\n'.format(html.escape(results.refusal))]
    else:
        parts = [_summary(results.scores), _trained_on(results.used)]
    parts += [_used(results.used), _checks(results.checks)]
    if not results.refusal:
        parts += [
            _classes(results.scores, results.counts, results.names),
            _confusion(results.counts, results.names),
            HIDDEN if results.thumbnails is None else _single_images(results),
        ]
    return HEAD.format(STYLE) + "".join(parts) + "</body>\n</html>\n"


def _single_images(results):
    return _calibration(results.confidence, results.labels == results.predictions) + _mistakes(results)


def calibration(confidence, correct):
    """Accuracy against confidence in bins of equal width.

    Args:
        confidence: float [n], the probability of each predicted class.
        correct: bool [n].

    Returns:
        (rows of (low, high, images, mean confidence, accuracy) for each bin that is not empty; expected calibration
        error: the mean distance of the two, weighted by images (M. P. Naeini et al., AAAI 2015)).
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows, error = [], 0.0
    for number in range(BINS):
        inside = place == number
        if inside.any():
            count, mean, accuracy = int(inside.sum()), float(confidence[inside].mean()), float(correct[inside].mean())
            rows.append((number / BINS, (number + 1) / BINS, count, mean, accuracy))
            error += count * abs(mean - accuracy)
    return rows, error / len(confidence)


def _summary(scores):
    interval = "95 % interval {:.1%} to {:.1%}".format(scores["accuracy_low"], scores["accuracy_high"])
    return (
        '<p class="big" data-score="accuracy" data-value="{accuracy}">{accuracy:.2%}</p>\n'
        '<p>of <span data-score="images" data-value="{images}">{images:,}</span> images correct, {interval}; '
        'macro F1 <span data-score="macro_f1" data-value="{macro_f1}">{macro_f1:.3f}</span></p>\n'
    ).format(interval=interval, **scores)


def _trained_on(used):
    text = '<p class="refusal">The model was trained on {:.0f} of these images, so the accuracy is too high.</p>\n'
    return text.format(used["trained_on"]) if used.get("trained_on") else ""


def _used(used):
    facts = []
    if used.get("images") and "seconds" in used:
        facts.append("<span>time per image<b>{:.1f} ms</b></span>".format(1000 * used["seconds"] / used["images"]))
        facts.append("<span>all images<b>{:.1f} s</b></span>".format(used["seconds"]))
    if "peak_mb" in used:
        facts.append("<span>peak memory<b>{:,.0f} MB</b></span>".format(used["peak_mb"]))
    if "precision" in used:
        facts.append("<span>computed in<b>{}</b></span>".format(html.escape(used["precision"])))
    return '<div class="facts">{}</div>\n'.format("".join(facts)) if facts else ""


def _checks(checks):
    if not checks:
        return ""
    rows = []
    for name, passed, reason, fix in checks:
        verdict = '<td class="pass">✓ pass</td>' if passed else '<td class="fail">✗ fail</td>'
        text = html.escape(reason) + ("" if passed or not fix else "<br>→ " + html.escape(fix))
        rows.append("<tr><td>{}</td>{}<td>{}</td></tr>\n".format(html.escape(name), verdict, text))
    return '<h2>Checks</h2>\n<div class="scroll whole"><table class="texts">\n{}</table></div>\n'.format("".join(rows))


def _classes(scores, counts, names):
    rows = []
    for row, name in enumerate(names):
        cells = "".join(
            '<td data-score="{0}_{1}" data-value="{2}">{2:.3f}</td>'.format(key, row, scores["{}_{}".format(key, row)])
            for key in ("precision", "recall", "f1")
        )
        images = int(counts[row].sum())
        rows.append("<tr><td>{}</td>{}<td>{:,}</td></tr>\n".format(html.escape(name), cells, images))
    head = "<tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>images</th></tr>\n"
    return "<h2>Classes</h2>\n" + _scrolled("classes", "classes", head, rows)


def _scrolled(kind, label, head, rows):
    """A table in an area of its own. A long or wide one scrolls there, below its head."""
    size = " whole" if len(rows) <= WHOLE and kind != "matrix" else ""
    area = '<div class="scroll{}" tabindex="0" role="region" aria-label="{}"><table class="{}">\n{}{}</table></div>\n'
    return area.format(size, label, kind, head, "".join(rows))


def _confusion(counts, names):
    """The largest confusions as a table, and the confusion matrix unless it is too large to be read."""
    matrix = TOO_LARGE if len(names) > MAX_MATRIX else _matrix(counts.tolist(), names)
    return "<h2>Confusion</h2>\n" + _largest_confusions(counts, names) + matrix


def _largest_confusions(counts, names):
    """The pairs of a true and a wrongly predicted class with the most images."""
    wrong = sorted((-int(counts[row, column]), row, column) for row, column in np.argwhere(counts) if row != column)
    if not wrong:
        return '<p class="soft">No image was taken for another class.</p>\n'
    rows = [
        '<tr><td>{}</td><td>{}</td><td class="number">{:,}</td><td class="number">{:.0%}</td></tr>\n'.format(
            html.escape(names[row]), html.escape(names[column]), -count, -count / sum(counts[row])
        )
        for count, row, column in wrong[:CONFUSIONS]
    ]
    number = '<th class="number">{}</th>'
    head = "<tr><th>true class</th><th>predicted class</th>{}{}</tr>\n".format(
        number.format("images"), number.format("share")
    )
    text = "<p>The largest {} of {:,} pairs of classes that were confused. Share: of the true class's images.</p>\n"
    return text.format(min(CONFUSIONS, len(wrong)), len(wrong)) + _scrolled("texts", "confusions", head, rows)


def _matrix(counts, names):
    """One cell for each pair of classes, as dark as its share of the true class's images; empty where there is none."""
    heads = "".join(
        '<th title="{0}"><span>{1} {0}</span></th>'.format(html.escape(name), number)
        for number, name in enumerate(names)  # as `predict` numbers them
    )
    rows = []
    for row, line in enumerate(counts):
        name, total = names[row], max(1, sum(line))
        cells = "".join(_cell(row, column, count, count / total, names) for column, count in enumerate(line))
        rows.append('<tr><th title="{0}">{1} {0}</th>{2}</tr>\n'.format(html.escape(name), row, cells))
    caption = '<p class="soft">Rows: true class; columns: predicted class.</p>\n'
    return caption + _scrolled(
        "matrix", "confusion matrix", "<tr><th>true ↓ predicted →</th>{}</tr>\n".format(heads), rows
    )


def _cell(row, column, count, share, names):
    if not count:
        return "<td></td>"
    color, depth = ("right", share) if row == column else ("wrong", share**0.5)  # few mistakes must be visible
    title = "{:,} images of {} predicted as {}".format(count, names[row], names[column])
    cell = '<td style="background:rgba(var(--{}-rgb),{:.2f})" title="{}" data-score="{}" data-value="{}">{}</td>'
    key = "confusion_{}_{}".format(row, column)
    return cell.format(color, 0.5 * depth, html.escape(title), key, count, count)


def _calibration(confidence, correct):
    if confidence is None:
        return '<h2>Calibration</h2>\n<p class="soft">Not available: the submission keeps no probabilities.</p>\n'
    rows, error = calibration(confidence, correct)
    left, top, size = 44, 10, 300
    view = '<svg viewBox="0 0 {} {}" role="img" aria-label="calibration">\n'
    parts = [view.format(left + size + 24, top + size + 44), _axes(left, top, size)]
    largest = max(count for _, _, count, _, _ in rows)
    circle = '<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" fill="var(--leaf)" fill-opacity=".8">{}</circle>\n'
    for low, high, count, mean, accuracy in rows:
        title = "{:,} predictions, confidence {:.0%} to {:.0%}: {:.1%} correct".format(count, low, high, accuracy)
        x, y, radius = left + size * mean, top + size * (1 - accuracy), 3 + 9 * (count / largest) ** 0.5
        parts.append(circle.format(x, y, radius, "<title>{}</title>".format(html.escape(title))))
    label = '<text x="{}" y="{}" text-anchor="middle">confidence</text>\n</svg>\n'
    parts.append(label.format(left + size / 2, top + size + 36))
    text = (
        "<p>Accuracy (vertical) against confidence (horizontal). A larger dot is more predictions. On the dashed line "
        "both are equal. Expected calibration error: {:.1%}.</p>\n"
    )
    return "<h2>Calibration</h2>\n" + text.format(error) + "".join(parts)


def _axes(left, top, size):
    """The grid of the calibration diagram with its labels, and the dashed diagonal."""
    line = '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="{}"{}/>\n'
    parts = []
    for tick in range(0, 101, 20):
        x, y = left + size * tick / 100, top + size * (1 - tick / 100)
        parts.append(line.format(left, y, left + size, y, "var(--line)", ""))
        parts.append('<text x="{}" y="{}" text-anchor="end">{} %</text>\n'.format(left - 5, y + 4, tick))
        parts.append('<text x="{}" y="{}" text-anchor="middle">{} %</text>\n'.format(x, top + size + 16, tick))
    parts.append(line.format(left, top + size, left + size, top, "var(--soft)", ' stroke-dasharray="4 4"'))
    return "".join(parts)


def _mistakes(results):
    """The wrong predictions with the highest confidence, with their images; the first ones without probabilities."""
    wrong, confidence = np.flatnonzero(results.labels != results.predictions), results.confidence
    if not len(wrong):
        return "<h2>Mistakes</h2>\n<p>None.</p>\n"
    order = wrong if confidence is None else wrong[np.argsort(-confidence[wrong], kind="stable")]
    items = []
    for row in order[:MISTAKES]:
        true, predicted = _true_and_predicted(results, row)
        text = "true {}<br>predicted {}".format(true, predicted)
        if confidence is not None:
            text += ", confidence {:.0%}".format(confidence[row])
        if results.files:
            text += "<br>" + html.escape(results.files[row])
        items.append("<li>{}<span>{}</span></li>\n".format(_thumbnail(results.thumbnails, row), text))
    which = "The first" if confidence is None else "The most confident"
    head = "<h2>Mistakes</h2>\n<p>{} {} of {:,}.</p>\n".format(which, min(MISTAKES, len(wrong)), len(wrong))
    return head + '<ul class="mistakes">\n{}</ul>\n'.format("".join(items)) + _files(results, order)


def _files(results, order):
    """The wrong predictions with the names of their files, if these are known."""
    if not results.files:
        return ""
    rows, confidence = [], results.confidence
    for row in order[:LISTED]:
        cells = "<td>{}</td><td>{}</td><td>{}</td>".format(
            html.escape(results.files[row]), *_true_and_predicted(results, row)
        )
        known = "" if confidence is None else '<td class="number">{:.0%}</td>'.format(confidence[row])
        rows.append("<tr>{}{}</tr>\n".format(cells, known))
    last = "" if confidence is None else '<th class="number">confidence</th>'
    head = "<tr><th>file</th><th>true class</th><th>predicted class</th>{}</tr>\n".format(last)
    text = "<p>The files of {} of {:,} mistakes, in the same order.</p>\n".format(len(rows), len(order))
    return text + _scrolled("texts files", "files of mistakes", head, rows)


def _true_and_predicted(results, row):
    """The names of both classes of an image, escaped."""
    return [html.escape(results.names[number]) for number in (results.labels[row], results.predictions[row])]


def _thumbnail(folder, row):
    try:
        with open(os.path.join(folder, "{:05d}.jpg".format(row)), "rb") as file:
            data = base64.b64encode(file.read()).decode()
    except OSError:
        return ""
    return '<img alt="image {}" src="data:image/jpeg;base64,{}">'.format(row, data)
