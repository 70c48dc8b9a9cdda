"""The limits on the code's structure hold, and the measure finds what exceeds them."""

import pytest
from helpers import ROOT

from docs import structure

pytestmark = pytest.mark.docs


def test_limits_hold():
    lines, holds = structure.measure()
    assert holds, "\n".join(lines)


def test_packing_grading_and_uploading_do_not_import_training():
    for path in structure.sources("competition", "common", "submission"):
        assert not [name for name in structure.imports(path) if name.startswith(("training", "sklearn"))], path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project in place of this one."""
    for package in structure.PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "training" / "recipes").mkdir()
    (tmp_path / "common" / "one.py").write_text("def f(a):\n    return a\n")
    (tmp_path / "training" / "recipes" / "base.py").write_text("recipe = 1\n")
    (tmp_path / "root.py").write_text("")
    monkeypatch.setattr(structure, "ROOT", tmp_path)
    assert structure.measure()[1]
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("common/long.py", "def f():\n" + "    x = 1\n" * 40),
        ("common/many.py", "def f(a, b, c, d, e, f, *, g):\n    pass\n"),
        ("competition/up.py", "from training.run import train\n"),
        ("competition/inside.py", "def f():\n    import sklearn.metrics\n"),
        ("training/up.py", "import benchmarks.memory\n"),
        ("training/circle.py", "from training import circle\n"),
        ("root2.py", "x = 1\n" * 101),
    ],
    ids=["long", "parameters", "upward", "inside a function", "later package", "circle", "root script"],
)
def test_what_exceeds_a_limit_is_found(project, file, text):
    (project / file).write_text(text)
    lines, holds = structure.measure()
    assert not holds, lines


def test_a_recipe_two_steps_from_its_base_is_found(project):
    folder = project / "training" / "recipes"
    (folder / "first.py").write_text("from training.recipes.base import recipe\n")
    assert structure.measure()[1]
    (folder / "second.py").write_text("from training.recipes.first import recipe\n")
    assert structure.recipe_depths()["second"] == 2
    assert not structure.measure()[1]


def test_docstrings_are_not_counted(project):
    (project / "common" / "documented.py").write_text('def f():\n    """' + "Text.\n" * 60 + '    """\n    return 1\n')
    assert structure.measure()[1]


def test_the_picture_is_drawn(tmp_path):
    structure.draw(tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_every_stage_of_the_picture_exists():
    for _, _, file in structure.STAGES:
        assert (ROOT / file).exists()
