"""detailed_results.html: one page that shows where a submission stands. No script, no outside address, light and dark."""

import base64
import html
import os

import numpy as np

BINS = 10  # of the calibration diagram
MISTAKES = 15

STYLE = """
:root { color-scheme: light dark; --ink: #1a1f1c; --soft: #5b655f; --paper: #fff; --line: #d9dfdb; --leaf: #1d7a46; --wrong: #b3372b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ece9; --soft: #a3ada7; --paper: #131715; --line: #323a35; --leaf: #5cc58b; --wrong: #f0877b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); }
.big { font-size: 2.6rem; font-weight: 700; line-height: 1.1; }
.refusal { border-left: .3rem solid var(--wrong); padding: .5rem 1rem; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0; }
.facts b { display: block; font-size: 1.15rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; } .checks td { text-align: left; }
.pass, .fail { white-space: nowrap; } .pass { color: var(--leaf); } .fail { color: var(--wrong); font-weight: 700; }
svg { display: block; width: 100%; height: auto; max-width: 34rem; } svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; padding: 0; list-style: none; }
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


def page(numbers, names, labels, predictions, probabilities, checks, used, refusal, thumbnails):
    """The whole page as text.

    Args:
        numbers: what `score.scores` returned; empty where nothing was scored.
        names: class names.
        labels, predictions: int64 [n]; predictions None where nothing was scored.
        probabilities: float32 [n, classes], or None.
        checks: (name, passed, reason, mend) of each check.
        used: "images", "seconds" and "peak_mb", those that are known.
        refusal: why nothing was scored, or "".
        thumbnails: folder with 00000.jpg, 00001.jpg, …
    """
    parts = [HEAD.format(STYLE)]
    if refusal:
        parts.append('<p class="refusal">Not scored: {}.</p>\n'.format(html.escape(refusal)))
    else:
        parts.append(_summary(numbers))
    parts += [_used(used), _checks(checks)]
    if not refusal:
        sure = None if probabilities is None else probabilities[np.arange(len(labels)), predictions]
        parts += [
            _classes(numbers, names),
            _confusion(numbers, names),
            _calibration(sure, labels == predictions),
            _mistakes(names, labels, predictions, sure, thumbnails),
        ]
    return "".join(parts) + "</body>\n</html>\n"


def calibration(sure, right):
    """How sure against how right, in bins of equal width.

    Args:
        sure: float [n], the probability of each answer.
        right: bool [n].

    Returns:
        (rows of (low, high, images, mean of sure, share right) for each bin that is not empty; expected calibration
        error, the mean distance of the two weighted by images: M. P. Naeini et al., AAAI 2015).
    """
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        inside = place == number
        if inside.any():
            rows.append((number / BINS, (number + 1) / BINS, int(inside.sum()), float(sure[inside].mean()), float(right[inside].mean())))
    return rows, sum(count * abs(mean - share) for _, _, count, mean, share in rows) / len(sure)


def _summary(n):
    interval = "95 % interval {:.1%} to {:.1%}".format(n["accuracy_low"], n["accuracy_high"])
    return (
        '<p class="big" data-score="accuracy" data-value="{accuracy}">{accuracy:.2%}</p>\n'
        '<p>of <span data-score="images" data-value="{images}">{images:,}</span> images right, {interval}; '
        'macro F1 <span data-score="macro_f1" data-value="{macro_f1}">{macro_f1:.3f}</span></p>\n'
    ).format(interval=interval, **n)


def _used(used):
    facts = []
    if used.get("images") and "seconds" in used:
        facts.append("<span>time per image<b>{:.1f} ms</b></span>".format(1000 * used["seconds"] / used["images"]))
        facts.append("<span>all images<b>{:.1f} s</b></span>".format(used["seconds"]))
    if "peak_mb" in used:
        facts.append("<span>memory at most<b>{:,.0f} MB</b></span>".format(used["peak_mb"]))
    return '<div class="facts">{}</div>\n'.format("".join(facts)) if facts else ""


def _checks(checks):
    if not checks:
        return ""
    rows = []
    for name, passed, reason, mend in checks:
        verdict = '<td class="pass">✓ pass</td>' if passed else '<td class="fail">✗ fail</td>'
        text = html.escape(reason) + ("" if passed or not mend else "<br>→ " + html.escape(mend))
        rows.append("<tr><td>{}</td>{}<td>{}</td></tr>\n".format(html.escape(name), verdict, text))
    return '<h2>Checks</h2>\n<div class="scroll"><table class="checks">\n{}</table></div>\n'.format("".join(rows))


def _classes(numbers, names):
    rows = []
    for row, name in enumerate(names):
        cells = "".join(
            '<td data-score="{0}_{1}" data-value="{2}">{2:.3f}</td>'.format(key, row, numbers["{}_{}".format(key, row)])
            for key in ("precision", "recall", "f1")
        )
        images = sum(numbers["confusion_{}_{}".format(row, column)] for column in range(len(names)))
        rows.append("<tr><td>{}</td>{}<td>{:,}</td></tr>\n".format(html.escape(name), cells, images))
    return (
        '<h2>Classes</h2>\n<div class="scroll"><table>\n'
        "<tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>images</th></tr>\n{}</table></div>\n"
    ).format("".join(rows))


def _confusion(numbers, names):
    """A square for each pair of classes, as dark as its share of the true class's images."""
    side, left, top = 40, 110, 24
    size = len(names) * side
    parts = ['<svg viewBox="0 0 {} {}" role="img" aria-label="confusion matrix">\n'.format(left + size + 2, top + size + 2)]
    for row, name in enumerate(names):
        counts = [numbers["confusion_{}_{}".format(row, column)] for column in range(len(names))]
        total = max(1, sum(counts))
        y = top + row * side
        parts.append('<text x="{}" y="{}" text-anchor="end">{}</text>\n'.format(left - 6, y + 25, html.escape(_short(name))))
        for column, count in enumerate(counts):
            x, share = left + column * side, count / total
            colour, depth = ("var(--leaf)", share) if row == column else ("var(--wrong)", share**0.5)  # a few mistakes are to be seen
            title = "{} images of {} taken for {}".format(count, name, names[column])
            square = '<rect x="{}" y="{}" width="{}" height="{}" fill="{}" fill-opacity="{:.3f}" stroke="var(--line)"/>'
            text = '<text x="{}" y="{}" text-anchor="middle" data-score="confusion_{}_{}" data-value="{}">{}</text>'
            parts.append(
                "<g><title>{}</title>".format(html.escape(title))
                + square.format(x, y, side, side, colour, 0.5 * depth)
                + text.format(x + side / 2, y + 25, row, column, count, count or "")
                + "</g>\n"
            )
    for column in range(len(names)):
        parts.append('<text x="{}" y="{}" text-anchor="middle">{}</text>\n'.format(left + (column + 0.5) * side, top - 8, column + 1))
    caption = '<p class="soft">Rows: true class; columns: predicted, in the same order.</p>\n'
    return "<h2>Confusion</h2>\n" + caption + "".join(parts) + "</svg>\n"


def _calibration(sure, right):
    if sure is None:
        return '<h2>Calibration</h2>\n<p class="soft">The submission does not tell how sure it is: it keeps no probabilities.</p>\n'
    rows, error = calibration(sure, right)
    left, top, size = 44, 10, 300
    parts = ['<svg viewBox="0 0 {} {}" role="img" aria-label="calibration">\n'.format(left + size + 24, top + size + 44)]
    line = '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="{}"{}/>\n'
    for tick in range(0, 101, 20):
        x, y = left + size * tick / 100, top + size * (1 - tick / 100)
        parts.append(line.format(left, y, left + size, y, "var(--line)", ""))
        parts.append('<text x="{}" y="{}" text-anchor="end">{} %</text>\n'.format(left - 5, y + 4, tick))
        parts.append('<text x="{}" y="{}" text-anchor="middle">{} %</text>\n'.format(x, top + size + 16, tick))
    parts.append(line.format(left, top + size, left + size, top, "var(--soft)", ' stroke-dasharray="4 4"'))
    largest = max(count for _, _, count, _, _ in rows)
    for low, high, count, mean, share in rows:
        title = "{:,} answers {:.0%} to {:.0%} sure: {:.1%} right".format(count, low, high, share)
        circle = '<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" fill="var(--leaf)" fill-opacity=".8"><title>{}</title></circle>\n'
        parts.append(circle.format(left + size * mean, top + size * (1 - share), 3 + 9 * (count / largest) ** 0.5, html.escape(title)))
    parts.append('<text x="{}" y="{}" text-anchor="middle">how sure</text>\n</svg>\n'.format(left + size / 2, top + size + 36))
    text = (
        "<p>How right (upwards) against how sure; a larger dot is more answers, on the dashed line they agree. Mean distance {:.1%}.</p>\n"
    )
    return "<h2>Calibration</h2>\n" + text.format(error) + "".join(parts)


def _mistakes(names, labels, predictions, sure, thumbnails):
    wrong = np.flatnonzero(labels != predictions)
    if not len(wrong):
        return "<h2>Mistakes</h2>\n<p>None.</p>\n"
    order = wrong if sure is None else wrong[np.argsort(-sure[wrong], kind="stable")]
    items = []
    for row in order[:MISTAKES]:
        confidence = "" if sure is None else ", {:.0%} sure".format(sure[row])
        text = "true {}<br>taken for {}{}".format(html.escape(names[labels[row]]), html.escape(names[predictions[row]]), confidence)
        items.append("<li>{}<span>{}</span></li>\n".format(_thumbnail(thumbnails, row), text))
    which = "The first" if sure is None else "The surest"
    head = "<h2>Mistakes</h2>\n<p>{} {} of {:,}.</p>\n".format(which, min(MISTAKES, len(wrong)), len(wrong))
    return head + '<ul class="mistakes">\n{}</ul>\n'.format("".join(items))


def _thumbnail(folder, row):
    try:
        with open(os.path.join(folder, "{:05d}.jpg".format(row)), "rb") as file:
            data = base64.b64encode(file.read()).decode()
    except OSError:
        return ""
    return '<img alt="image {}" src="data:image/jpeg;base64,{}">'.format(row, data)


def _short(name):
    return name if len(name) <= 16 else name[:15] + "…"
