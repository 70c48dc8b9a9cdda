"""Synthetic leaf images, for tests, benchmarks and trial runs without labelled photographs."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 96  # pixels


def draw_leaf(species: int, rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """Draws one leaf on a textured ground.

    Args:
        species: 0, 1, 2, …; sets the number and depth of the lobes, the width and the hue.
        rng: random generator; sets position, size, rotation, brightness and ground.
        side: side of the square image in pixels.

    Returns:
        PIL image in mode RGB, side × side pixels.
    """
    ground = rng.normal(rng.uniform(70, 130), 25, (side // 4, side // 4, 3)) * [1.0, 0.9, 0.7]
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    outline = _outline(species, rng, side)
    brightness = rng.uniform(0.7, 1.2)
    hue = (40 + 23 * (species % 8), 190 - 12 * (species % 8), 50 + 20 * (species % 3))
    color = tuple(int(min(255, channel * brightness)) for channel in hue)
    pen = ImageDraw.Draw(image)
    pen.polygon([tuple(point) for point in outline], fill=color)
    vein = [tuple(outline[0]), tuple(outline[60])]
    pen.line(vein, fill=tuple(channel // 2 for channel in color), width=max(1, side // 48))
    return image.filter(ImageFilter.GaussianBlur(side / 200))


def draw_images(count: int, classes: int = 8, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Draws leaves whose species cycle through 0, 1, …, classes - 1.

    Returns:
        uint8 array [count, side, side, 3], RGB.
    """
    rng = np.random.default_rng(seed)
    return np.stack([np.asarray(draw_leaf(number % classes, rng, side)) for number in range(count)])


def draw_folder(folder: Path | str, per_class: int, classes: int = 8, seed: int = 0, side: int = SIDE) -> None:
    """Writes the class folders Species1, Species2, … with `per_class` JPEG files each."""
    rng = np.random.default_rng(seed)
    for species in range(classes):
        target = Path(folder) / f"Species{species + 1}"
        target.mkdir(parents=True)
        for number in range(per_class):
            draw_leaf(species, rng, side).save(target / f"{number:05d}.jpg", quality=95, subsampling=0)


def _outline(species: int, rng: np.random.Generator, side: int) -> np.ndarray:
    """Returns the outline of a leaf: float64 [120, 2], (x, y) in pixels."""
    angle = np.linspace(0, 2 * np.pi, 120)
    lobes, depth, width = 2 + species % 4, 0.15 + 0.1 * (species % 3), 0.45 + 0.08 * (species % 5)
    radius = side * rng.uniform(0.28, 0.4) * (1 + depth * np.cos(lobes * angle))
    turn = rng.uniform(0, 2 * np.pi)
    x, y = radius * np.cos(angle), width * radius * np.sin(angle)
    center = side / 2 + rng.uniform(-0.08, 0.08, 2) * side
    return np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1) + center
