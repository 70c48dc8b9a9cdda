"""python -m competition: the bundle it writes, its exit codes, and that an old file is replaced only by a whole one."""

import errno
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, load_module, python
from PIL import Image

from competition import __main__ as command_line
from competition.host import bundle
from competition.host.bundle import Settings
from competition.synthetic import draw_folder

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")
COUNT, CLASSES, files = bundles.COUNT, bundles.CLASSES, bundles.files
OLD = b"the old bundle"
OPTIONS = (
    "--out",
    "--labels",
    "--size",
    "--classes",
    "--title",
    "--text",
    "--logo",
    "--start",
    "--seconds",
    "--per-day",
    "--in-all",
    "--docker-image",
    "--show-mistakes",
)


@pytest.fixture
def old_bundle(tmp_path):
    """An earlier bundle, in a folder of its own."""
    path = tmp_path / "dist" / "competition.zip"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def is_kept(old_bundle):
    """Whether the earlier bundle is unchanged, and the only file of its folder."""
    return old_bundle.read_bytes() == OLD and files(old_bundle.parent) == [old_bundle.name]


def refusal(capsys, *arguments):
    """Runs the command, which must refuse with one line, perhaps below the usage. Returns the line."""
    try:
        code = command_line.main([*map(str, arguments)])
    except SystemExit as error:  # of the command line's parser
        code = error.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    line = re.fullmatch(r"(?:usage: [^\0]+\npython -m competition: )?(error: .+\n)", printed.err)
    assert line
    return line[1]


def description_in(path):
    """What competition.yaml of a bundle has."""
    with zipfile.ZipFile(path) as archive:
        return yaml.safe_load(archive.read("competition.yaml"))


@pytest.mark.unit
def test_command_replaces_the_old_bundle(telltale_folder, old_bundle, capsys):
    options = ["--out", str(old_bundle), "--title", "Mine", "--start", "2027-01-31", "--seconds", "60"]
    assert command_line.main([str(telltale_folder), *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    bundle_line, classes_line, numbers_line, note_line, kit_line = printed.out.splitlines()
    assert "give --classes, so that all keep their numbers" in numbers_line
    assert classes_line == "classes: 0 = Species1, 1 = Species2, 2 = Species3, 3 = Species4"
    assert re.fullmatch(rf"{re.escape(str(old_bundle))}  [\d.]+ MB: {COUNT} images of {CLASSES} classes", bundle_line)
    assert note_line.startswith(f"{old_bundle.with_name('competition.organizer.md')}  what participants can see")
    assert kit_line.startswith(f"{old_bundle.with_name('competition.starting_kit.zip')}  a sample submission")
    saved = description_in(old_bundle)
    assert saved["title"] == "Mine"
    assert saved["phases"][0]["start"] == "2027-01-31 00:00:00"
    assert files(old_bundle.parent) == ["competition.organizer.md", "competition.starting_kit.zip", old_bundle.name]


@pytest.mark.unit
def test_large_photographs_keep_their_size_only_on_request(tmp_path, capsys):
    for number in range(4):
        path = tmp_path / "photographs" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (600, 400), (60 * number, 90, 20)).save(path)
    for options, shape, stored in (([], (256, 384), ".png"), (["--size", "400x600"], (400, 600), ".jpg")):
        path = tmp_path / f"{shape[0]}.zip"
        assert command_line.main([str(tmp_path / "photographs"), "--out", str(path), *options]) == 0
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.startswith("input_data/images/")]
            with archive.open(names[0]) as file, Image.open(file) as image:
                assert image.size == shape[::-1]
        assert {Path(name).suffix for name in names} == {stored}
        assert ("--size chooses another" in capsys.readouterr().out) == (not options)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("option", "name"),
    [("--text", "mine.organizer.md"), ("--classes", "mine.starting_kit.zip"), ("--text", "mine.zip")],
)
def test_a_file_that_is_read_is_not_overwritten(telltale_folder, tmp_path, capsys, option, name):
    (tmp_path / name).write_text("Species1\nSpecies2\nSpecies3\nSpecies4\n", "utf-8")
    error = refusal(capsys, telltale_folder, "--out", tmp_path / "mine.zip", option, tmp_path / name)
    assert f"must be another file than {option}" in error
    assert files(tmp_path) == [name]


@pytest.mark.unit
def test_mistakes_are_shown_only_on_request_and_the_command_says_what_that_gives_away(
    telltale_folder, old_bundle, capsys
):
    command = [str(telltale_folder), "--out", str(old_bundle), "--in-all", "1"]
    for option, shown in (([], False), (["--show-mistakes"], True)):
        assert command_line.main([*command, *option]) == 0
        said = " up to 15 hidden images with their true labels"
        note = old_bundle.with_name("competition.organizer.md").read_text("utf-8")
        for text in (capsys.readouterr().out, note):
            assert (said in text) == ("can collect 15 of the 20 labels with 1 submissions" in text) == shown
        with zipfile.ZipFile(old_bundle) as archive:
            names = [reference_file(name) for name in archive.namelist()]
        assert any("images/" in name or "details" in name for name in names) == shown
        assert "files.txt" not in names


def reference_file(name):
    """The part of a name below reference_data, or ""."""
    return name.removeprefix("reference_data/") if name.startswith("reference_data/") else ""


WRONG = {
    "empty title": ("--title", ""),
    "blank title": ("--title", "  "),
    "long title": ("--title", "x" * 256),
    "word as date": ("--start", "tomorrow"),
    "no such month": ("--start", "2026-13-01"),
    "short date": ("--start", "2026-2-1"),
    "time": ("--start", "2026-12-01T10:00"),
    "two lines as title": ("--title", "a\nb"),
    "title that is not UTF-8": ("--title", "caf\udce9"),
    "no seconds": ("--seconds", "0"),
    "negative seconds": ("--seconds", "-5"),
    "none a day": ("--per-day", "0"),
    "none in all": ("--in-all", "0"),
    "no image": ("--docker-image", ""),
    "long image": ("--docker-image", "x" * 129),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", WRONG)
def test_wrong_setting_is_refused(telltale_folder, old_bundle, capsys, case):
    option, value = WRONG[case]
    assert option.strip("-") in refusal(capsys, telltale_folder, "--out", old_bundle, f"{option}={value}")
    assert is_kept(old_bundle)


def write_wrong_file(path, case):
    """Writes a file that is no text or no picture, or none."""
    contents = {
        "empty": b"",
        "blank": b" \n",
        "only a mark": b"\xef\xbb\xbf",
        "not UTF-8": b"\xff\xfe\xff",
        "no picture": b"<svg/>",
    }
    if case == "folder":
        path.mkdir()
    elif case != "missing":
        path.write_bytes(contents[case])
    return path


@pytest.mark.unit
@pytest.mark.parametrize(
    ("option", "case"),
    [
        *(("--text", case) for case in ("missing", "folder", "empty", "blank", "only a mark", "not UTF-8")),
        *(("--logo", case) for case in ("missing", "folder", "empty", "no picture")),
    ],
)
def test_unusable_text_or_logo_is_refused_by_its_name(telltale_folder, old_bundle, tmp_path, capsys, option, case):
    path = write_wrong_file(tmp_path / "file", case)
    error = refusal(capsys, telltale_folder, "--out", old_bundle, option, path)
    assert option in error
    assert str(path) in error
    assert "object at" not in error
    assert is_kept(old_bundle)


@pytest.mark.unit
def test_settings_at_their_limits_are_accepted():
    Settings("x" * 255, "2028-02-29", 1, 1, 1, "x" * 128)


@pytest.mark.unit
@pytest.mark.parametrize("start", ["20260131", "2026-W05-6"])
def test_date_in_another_form_is_refused_or_normalised(telltale_folder, old_bundle, capsys, start):
    """Newer versions of Python read these forms, the server may not."""
    if command_line.main([str(telltale_folder), "--out", str(old_bundle), "--start", start]) == 2:
        assert "--start" in capsys.readouterr().err
    else:
        assert description_in(old_bundle)["phases"][0]["start"] == "2026-01-31 00:00:00"


@pytest.mark.unit
@pytest.mark.parametrize("case", ["missing", "file", "empty", "one class"])
def test_unusable_data_is_refused(tmp_path, old_bundle, capsys, case):
    folder = tmp_path / "data"
    if case == "file":
        folder.write_text("x")
    elif case == "empty":
        folder.mkdir()
    elif case == "one class":
        draw_folder(folder, 2, classes=1, side=16)
    assert str(folder) in refusal(capsys, folder, "--out", old_bundle)
    assert is_kept(old_bundle)


@pytest.mark.unit
def test_unwritable_place_is_refused(telltale_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.zip").mkdir()
    out = tmp_path / "file" / "a.zip"
    assert f"cannot write {out}: " in refusal(capsys, telltale_folder, "--out", out)
    out = tmp_path / "folder.zip"
    assert f"must be a file, and {out} is a folder" in refusal(capsys, telltale_folder, "--out", out)
    assert files(tmp_path) == ["file"]


@pytest.mark.unit
@pytest.mark.parametrize("name", ["comp", "comp.tar"])
def test_bundle_must_be_called_a_zip(telltale_folder, tmp_path, capsys, name):
    out = tmp_path / name
    assert f"--out must end with .zip, got {out}; give {out}.zip" in refusal(capsys, telltale_folder, "--out", out)
    assert files(tmp_path) == []


@pytest.mark.unit
@pytest.mark.parametrize("step", ["write_image_files", "write_reference", "neutral_logo", "page"])
def test_full_disk_keeps_the_old_bundle(telltale_folder, old_bundle, capsys, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bundle, step, full)
    error = refusal(capsys, telltale_folder, "--out", old_bundle)
    assert f"cannot write {old_bundle}: No space left on device" in error
    assert is_kept(old_bundle)


@pytest.mark.integration
def test_disk_that_fills_up_during_a_write_keeps_the_old_bundle(telltale_folder, old_bundle):
    """A real failure: the process may write no file larger than 30 kB. -B, or it would cut off Python's .pyc files."""
    pytest.importorskip("resource", reason="only Unix limits a process")
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from competition.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(sys.argv[2:]))
"""
    done = python("-B", "-c", code, ROOT, telltale_folder, "--out", old_bundle)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(f"error: cannot write {re.escape(str(old_bundle))}: File too large.*\n", done.stderr)
    assert is_kept(old_bundle)


@pytest.mark.unit
@pytest.mark.parametrize("step", ["write_image_files", "write_reference"])
def test_interrupt_keeps_the_old_bundle(telltale_folder, old_bundle, capsys, monkeypatch, step):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, step, interrupt)
    assert command_line.main([str(telltale_folder), "--out", str(old_bundle)]) == 130
    assert re.fullmatch("\ninterrupted.*unchanged\n", capsys.readouterr().err)
    assert is_kept(old_bundle)


@pytest.mark.unit
@pytest.mark.parametrize("arguments", [[], ["a", "--seconds", "many"], ["a", "--nonsense"], ["a", "b"]])
def test_wrong_arguments_show_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.unit
def test_help_has_examples_and_all_options(capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert re.search(r"examples:\n( +python -m competition .+\n){2,}", text)
    assert "exit codes: 0" in text
    assert all(option in text for option in OPTIONS)
    words = " ".join(text.split())
    for said in ("in UTC (default: today); the web page enforces a start in the future", "My Resources → Competitions"):
        assert said in words


@pytest.mark.integration
def test_module_runs_by_its_name(tmp_path):
    done = python("-m", "competition", tmp_path / "nowhere", cwd=ROOT, isolated=False)
    assert done.returncode == 2
    assert re.fullmatch(f"error: .*{re.escape(str(tmp_path / 'nowhere'))}.*\n", done.stderr)


@pytest.mark.integration
def test_make_help_lists_the_target():
    if not re.search(r"^competition:", (ROOT / "Makefile").read_text(), re.MULTILINE):
        pytest.skip("the Makefile has no target competition")
    if not shutil.which("make"):
        pytest.skip("no make on this system")
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert re.search(r"^  make competition +\S", done.stdout, re.MULTILINE)


@pytest.mark.integration
def test_make_competition_passes_title_text_and_logo(telltale_folder, tmp_path):
    """`echo` stands in for Python, so nothing is installed or written."""
    if not shutil.which("make"):
        pytest.skip("no make on this system")
    (tmp_path / "python").symlink_to(shutil.which("echo"))
    words = {"TITLE": 'It\'s "mine"; & yours', "TEXT": "my text.md", "LOGO": "my logo.png"}
    shown = {"TITLE": "--title", "TEXT": "--text", "LOGO": "--logo"}
    for given in ([], ["TITLE"], ["TITLE", "TEXT", "LOGO"]):
        variables = [f"{name}={words[name]}" for name in given]
        command = ["make", "-s", "-o", ".venv/ready", "-o", "packages", "competition", f"BIN={tmp_path}"]
        done = subprocess.run(
            [*command, f"DATA={telltale_folder}", *variables], cwd=ROOT, capture_output=True, text=True
        )
        expected = " ".join([f"-m competition {telltale_folder}", *(f"{shown[name]} {words[name]}" for name in given)])
        assert done.stdout == expected + "\n", done.stderr
