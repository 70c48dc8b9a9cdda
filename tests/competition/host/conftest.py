"""Fixtures of the host's tests: labelled images, and a bundle made of them."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers import load_module
from PIL import Image

from common.images import load_folder
from competition.host.bundle import build
from competition.synthetic import draw_folder

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")


@pytest.fixture(scope="session")
def telltale_folder(tmp_path_factory):
    """Synthetic leaves whose file names and EXIF tell their class and origin."""
    folder = tmp_path_factory.mktemp(f"{bundles.TELLTALE}-leaves") / "images"
    draw_folder(folder, bundles.PER_CLASS, classes=bundles.CLASSES, side=bundles.SIDE)
    for path in sorted(folder.rglob("*.jpg")):
        exif = Image.Exif()
        exif[0x010E] = f"{bundles.TELLTALE} {path}"
        with Image.open(path) as image:
            name = f"{bundles.TELLTALE}-{path.parent.name}-{path.stem}.jpg"
            image.save(path.with_name(name), quality="keep", exif=exif)
        path.unlink()
    return folder


@pytest.fixture(scope="session")
def telltale_images(telltale_folder):
    return load_folder(telltale_folder)


@pytest.fixture(scope="session")
def unpacked(telltale_images, tmp_path_factory):
    """A bundle of the images, unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    path = build(telltale_images, bundles.SETTINGS, folder / "new" / "competition.zip")
    return bundles.unpack(path, folder / "unpacked")


@pytest.fixture(scope="session")
def shown(telltale_images, tmp_path_factory):
    """A bundle that shows participants their mistakes, unpacked."""
    folder = tmp_path_factory.mktemp("bundle-with-mistakes")
    path = build(telltale_images, replace(bundles.SETTINGS, show_mistakes=True), folder / "new" / "competition.zip")
    return bundles.unpack(path, folder / "unpacked")
