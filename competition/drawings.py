"""Drawn leaves: photographs of nothing, for trying things out where no labelled images are at hand."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 96  # pixels


def draw_leaf(species, rng, side=SIDE):
    """One drawn leaf on the ground.

    Args:
        species: 0, 1, 2, …: decides the number of lobes, their depth, the width and the hue.
        rng: `numpy.random.Generator`, decides place, size, turn, light and ground.
        side: side in pixels.

    Returns:
        PIL image in mode RGB, side × side.
    """
    ground = rng.normal(rng.uniform(70, 130), 25, (side // 4, side // 4, 3)) * [1.0, 0.9, 0.7]
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).resize((side, side), Image.BICUBIC)
    angle = np.linspace(0, 2 * np.pi, 120)
    lobes, depth, width = 2 + species % 4, 0.15 + 0.1 * (species % 3), 0.45 + 0.08 * (species % 5)
    radius = side * rng.uniform(0.28, 0.4) * (1 + depth * np.cos(lobes * angle))
    turn = rng.uniform(0, 2 * np.pi)
    x, y = radius * np.cos(angle), width * radius * np.sin(angle)
    centre = side / 2 + rng.uniform(-0.08, 0.08, 2) * side
    outline = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1) + centre
    light = rng.uniform(0.7, 1.2)
    colour = tuple(int(min(255, c * light)) for c in (40 + 23 * (species % 8), 190 - 12 * (species % 8), 50 + 20 * (species % 3)))
    pen = ImageDraw.Draw(image)
    pen.polygon([tuple(p) for p in outline], fill=colour)
    pen.line([tuple(outline[0]), tuple(outline[60])], fill=tuple(c // 2 for c in colour), width=max(1, side // 48))
    return image.filter(ImageFilter.GaussianBlur(side / 200))


def draw_images(count, classes=8, seed=0, side=SIDE):
    """`count` drawn leaves, the species in turn.

    Returns:
        uint8 [count, side, side, 3].
    """
    rng = np.random.default_rng(seed)
    return np.stack([np.asarray(draw_leaf(number % classes, rng, side)) for number in range(count)])


def draw_folder(folder, per_class, classes=8, seed=0, side=SIDE):
    """Class folders Species1, Species2, … with `per_class` JPEG files each."""
    rng = np.random.default_rng(seed)
    for species in range(classes):
        target = Path(folder) / f"Species{species + 1}"
        target.mkdir(parents=True)
        for number in range(per_class):
            draw_leaf(species, rng, side).save(target / f"{number:05d}.jpg", quality=95, subsampling=0)
