"""The bundle: it keeps every rule of Codabench, and tells the participants nothing about the labels."""

import json
import re
import time
import zipfile
from dataclasses import replace
from datetime import datetime, timezone
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT, load_module
from markdown_it import MarkdownIt
from PIL import Image

from common.images import load_folder
from competition.host import bundle
from competition.host.appearance import read_logo, read_text
from competition.host.bundle import Settings, as_markdown, build, description, note_path, write_reference
from competition.synthetic import draw_folder

pytestmark = pytest.mark.unit

bundles = load_module(Path(__file__).with_name("bundles.py"), "bundles")
SETTINGS, SIDE, COUNT, CLASSES = bundles.SETTINGS, bundles.SIDE, bundles.COUNT, bundles.CLASSES
unpack, files, lines = bundles.unpack, bundles.files, bundles.lines
RULES = ("Add", "Add_And_Delete", "Add_And_Delete_Multiple", "Force_Last", "Force_Latest_Multiple", "Force_Best")


# --- the zip and competition.yaml


def test_zip_has_the_expected_files(unpacked):
    assert {path.name for path in unpacked.folder.iterdir()} == {
        *("competition.yaml", "logo.png", "terms.md", "overview.md", "data.md", "evaluation.md", "starting_kit.md"),
        "starting_kit.zip",
        *("input_data", "reference_data", "ingestion_program", "scoring_program"),
    }
    assert files(unpacked.folder / "ingestion_program") == [
        "contract.json",
        "decoder.py",
        "ingestion.py",
        "metadata.yaml",
        "runner.py",
    ]
    assert files(unpacked.folder / "scoring_program") == ["details.py", "metadata.yaml", "score.py"]
    images = [f"images/{number:05d}.jpg" for number in range(COUNT)]
    assert files(unpacked.folder / "input_data") == ["classes.txt", *images, "shape.json"]
    assert files(unpacked.folder / "reference_data") == ["classes.txt", "labels.txt"]


def test_mistakes_add_thumbnails_and_a_setting_to_the_reference_data(shown):
    thumbnails = [f"images/{number:05d}.jpg" for number in range(COUNT)]
    expected = sorted(["classes.txt", "details.json", "labels.txt", *thumbnails])
    assert files(shown.folder / "reference_data") == expected
    assert json.loads((shown.folder / "reference_data" / "details.json").read_text()) == {"mistakes": True}


def test_zip_is_whole_and_its_names_are_portable(unpacked):
    with zipfile.ZipFile(unpacked.zip) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9_.]+(/[a-z0-9_.]+)*", name) for name in names)
    beside = ["competition.organizer.md", "competition.starting_kit.zip", "competition.zip"]
    assert files(unpacked.zip.parent) == beside


def test_required_keys_are_present(unpacked):
    saved = unpacked.yaml
    assert {"version", "title", "image", "terms", "docker_image", "pages", "tasks", "phases", "leaderboards"} <= set(
        saved
    )
    assert saved["pages"] and saved["tasks"] and saved["phases"] and saved["leaderboards"]
    for value in saved["pages"]:
        assert set(value) == {"title", "file"}
    for value in saved["tasks"]:
        assert {"index", "name", "input_data", "reference_data", "ingestion_program", "scoring_program"} <= set(value)
    for value in saved["phases"]:
        assert {"index", "name", "start", "execution_time_limit", "tasks"} <= set(value)
    for value in saved["leaderboards"]:
        assert {"title", "key", "submission_rule", "columns"} <= set(value)
    for value in unpacked.columns:
        assert {"title", "key", "index", "sorting", "precision"} <= set(value)
    assert all(
        value
        for key in ("pages", "tasks", "phases", "leaderboards")
        for entry in saved[key]
        for value in map(str, entry.values())
    )


def test_values_are_the_settings(unpacked):
    saved = unpacked.yaml
    assert unpacked.text.startswith("version: 2\n")
    assert saved["version"] == 2
    assert saved["title"] == SETTINGS.title
    assert 1 <= len(saved["docker_image"]) <= 128
    assert saved["enable_detailed_results"] is True
    assert saved["show_detailed_results_in_leaderboard"] is False  # Codabench's default is True
    assert saved["registration_auto_approve"] is True
    phase = saved["phases"][0]
    assert phase["max_submissions_per_day"] == 3
    assert phase["max_submissions"] == 40
    assert phase["execution_time_limit"] > SETTINGS.seconds  # the program's own limit comes first, and has a reason
    assert json.loads((unpacked.folder / "ingestion_program" / "contract.json").read_text()) == {
        "class": "model",
        "seconds": 120,
    }


def test_dates_are_quoted(unpacked):
    """YAML reads an unquoted timestamp as a date, and cuts it to midnight."""
    assert [phase["start"] for phase in unpacked.yaml["phases"]] == ["2026-12-01 00:00:00"]
    assert re.search(r"start: (['\"])2026-12-01 00:00:00\1$", unpacked.text, re.MULTILINE)
    assert not any("end" in phase for phase in unpacked.yaml["phases"])


@pytest.mark.parametrize("zone", ["UTC", "<+14>-14", "<-12>12"])
def test_default_start_is_today_in_utc(monkeypatch, zone):
    """At any time, the date of one of the zones differs from that of UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        before = datetime.now(timezone.utc).date().isoformat()
        start = yaml.safe_load(description(Settings()))["phases"][0]["start"]
        assert start in {f"{day} 00:00:00" for day in (before, datetime.now(timezone.utc).date().isoformat())}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_leaderboard_keeps_the_rules_of_codabench(unpacked):
    board = unpacked.yaml["leaderboards"][0]
    assert board["submission_rule"] in RULES
    assert board["submission_rule"] == "Force_Best"  # as the page Evaluation says
    columns = [(column["title"], column["key"], column["sorting"], column["precision"]) for column in board["columns"]]
    assert columns == [
        ("Accuracy", "accuracy", "desc", 4),
        ("Macro F1", "macro_f1", "desc", 4),
        ("95 % from", "accuracy_low", "desc", 4),
        ("95 % to", "accuracy_high", "desc", 4),
    ]
    (phase,) = unpacked.yaml["phases"]
    assert phase["hide_prediction_output"] is True
    assert (
        phase["execution_time_limit"]
        >= 60 + json.loads((unpacked.folder / "ingestion_program" / "contract.json").read_text("utf-8"))["seconds"]
    )
    index = [column["index"] for column in board["columns"]]
    assert index.count(0) == 1
    assert len(set(index)) == len(index)
    assert board["columns"][index.index(0)]["key"] == "accuracy"
    keys = [column["key"] for column in board["columns"]]
    assert len(set(keys)) == len(keys)
    for column in board["columns"]:
        assert 1 <= len(column["title"]) <= 36
        assert column["sorting"] in ("asc", "desc")
        assert isinstance(column["precision"], int)


def test_phases_name_tasks_that_exist(unpacked):
    tasks = [task["index"] for task in unpacked.yaml["tasks"]]
    assert sorted(set(tasks)) == sorted(tasks)
    for phase in unpacked.yaml["phases"]:
        assert phase["tasks"]
        assert set(phase["tasks"]) <= set(tasks)


def test_named_files_and_folders_exist(unpacked):
    named = [unpacked.yaml["image"], unpacked.yaml["terms"], *(page["file"] for page in unpacked.yaml["pages"])]
    assert all((unpacked.folder / name).is_file() for name in named)
    for task in unpacked.yaml["tasks"]:
        for key in ("input_data", "reference_data", "ingestion_program", "scoring_program"):
            assert (unpacked.folder / task[key]).is_dir()
            assert files(unpacked.folder / task[key])


def test_logo_is_a_png(unpacked):
    path = unpacked.folder / unpacked.yaml["image"]
    assert path.suffix == ".png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) >= 100


def test_pages_have_the_numbers_of_this_competition(unpacked, telltale_images):
    texts = {
        name: (unpacked.folder / name).read_text("utf-8")
        for name in ("terms.md", "overview.md", "data.md", "evaluation.md", "starting_kit.md")
    }
    assert all(text.strip() for text in texts.values())
    assert not any(re.search(r"[{}]", text) for text in texts.values())  # every placeholder is filled in
    assert SETTINGS.title in texts["overview.md"]
    assert f"{COUNT} images" in texts["overview.md"]
    assert f"{SIDE}×{SIDE}" in texts["data.md"]
    for number, name in enumerate(telltale_images.names):
        assert f"\n{number}. {name}\n" in texts["data.md"]
    for said in (
        f"[n, {SIDE}, {SIDE}, 3]",
        f"0 to {CLASSES - 1}",
        f"[n, {CLASSES}]",
        "120 s",
        "3 submissions a day",
        "40 in all",
    ):
        assert said in texts["evaluation.md"]


@pytest.mark.parametrize("which", ["unpacked", "shown"])
def test_pages_are_true_about_the_network_and_the_page_of_details(request, which):
    text = (request.getfixturevalue(which).folder / "evaluation.md").read_text("utf-8")
    assert "The server may have one" in text
    assert not re.search("no network|without a network", text)
    assert ("They show no image" in text) == (which == "unpacked")
    assert ("images\n  that your model got wrong" in text) == (which == "shown")


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("unpacked", ["no image, no label and no row of a hidden image"]),
        ("shown", ["up to 15 hidden images with their true labels", "20 of the 20 labels with 40 submissions"]),
    ],
)
def test_note_says_what_participants_can_see(request, which, words):
    """3 labels with each of 40 submissions are more than the 20 images."""
    text = note_path(request.getfixturevalue(which).zip).read_text("utf-8")
    assert not re.search(r"[{}]", text)
    said = ["show_detailed_results_in_leaderboard", "confusion counts", "COMPETITION_CONTAINER_NETWORK_DISABLED=true"]
    said += ["My Resources → Competitions", "read as UTC", "web page only", "new random order", "20 hidden images"]
    assert [word for word in (*said, *words) if word not in " ".join(text.split())] == []


def test_braces_in_a_title_are_kept(telltale_images, tmp_path):
    unpacked = unpack(build(telltale_images, Settings("{count} {0} of {"), tmp_path / "a.zip"), tmp_path / "a")
    assert unpacked.yaml["title"] == "{count} {0} of {"
    assert "# {count} {0} of {" in (unpacked.folder / "overview.md").read_text()


def test_other_braces_in_an_edited_page_are_kept(telltale_images, tmp_path, monkeypatch):
    text = "# {title}\n\nSend {'a': 1}, {} or {other} for {count} images, }{ \\1 {{seconds}}\n"
    (tmp_path / "overview.md").write_text(text)
    monkeypatch.setattr(bundle, "PAGES_FOLDER", tmp_path)
    page = bundle.page("overview.md", Settings("A \\1 {count}", seconds=7), telltale_images)
    assert page == "# A \\1 {count}\n\n" + f"Send {{'a': 1}}, {{}} or {{other}} for {COUNT} images, }}{{ \\1 {{7}}\n"


def test_programs_have_the_commands_of_the_worker(unpacked):
    expected = {
        "ingestion_program": "ingestion.py /app/input_data /app/output /app/program /app/ingested_program",
        "scoring_program": "score.py /app/input /app/output",
    }
    for name, arguments in expected.items():
        metadata = yaml.safe_load((unpacked.folder / name / "metadata.yaml").read_text())
        assert metadata == {"command": f"python3 /app/program/{arguments}"}


def test_programs_are_copied_unchanged(unpacked):
    for path in bundles.PROGRAMS:
        assert (unpacked.folder / path.parent.name / path.name).read_bytes() == path.read_bytes()


# --- nothing that participants see reveals a label


def test_labels_are_in_the_order_of_the_images(unpacked, telltale_images):
    rows = {image.tobytes(): label for image, label in zip(telltale_images.images, telltale_images.labels, strict=True)}
    assert unpacked.images.dtype == np.uint8
    assert unpacked.images.shape == (COUNT, SIDE, SIDE, 3)
    assert len({image.tobytes() for image in unpacked.images}) == COUNT
    assert [str(rows[image.tobytes()]) for image in unpacked.images] == unpacked.labels
    for part in ("input_data", "reference_data"):
        assert lines(unpacked.folder / part / "classes.txt") == list(telltale_images.names)


def test_thumbnails_are_in_the_order_of_the_images(shown):
    for number in range(COUNT):
        with Image.open(shown.folder / "reference_data" / "images" / f"{number:05d}.jpg") as thumbnail:
            assert thumbnail.format == "JPEG"
            difference = np.abs(np.asarray(thumbnail, float) - shown.images).mean((1, 2, 3))
        assert difference.argmin() == number
        assert difference[number] < 10


def test_order_is_another_one_each_time(unpacked, telltale_images, tmp_path):
    """If it were seeded or sorted, a participant could reproduce it."""
    other = unpack(build(telltale_images, SETTINGS, tmp_path / "a.zip"), tmp_path / "a")
    assert sorted(image.tobytes() for image in unpacked.images) == sorted(image.tobytes() for image in other.images)
    assert not np.array_equal(unpacked.images, other.images)
    for one in (unpacked, other):
        assert not np.array_equal(one.images, telltale_images.images)
        assert one.labels != sorted(one.labels)


@pytest.mark.parametrize("which", ["unpacked", "shown"])
def test_no_name_and_no_path_is_left(request, telltale_folder, telltale_images, which):
    unpacked = request.getfixturevalue(which)
    words = {bundles.TELLTALE, str(telltale_folder), str(telltale_folder.parent), str(ROOT), str(Path.home())} | {
        Path(path).stem for path in telltale_images.paths
    }
    words = [word.encode() for word in words if len(word) > 5]
    for data in (
        unpacked.zip.read_bytes(),
        note_path(unpacked.zip).read_bytes(),
        *(path.read_bytes() for path in unpacked.folder.rglob("*") if path.is_file()),
    ):
        assert not [word for word in words if word in data]
    for path in unpacked.folder.glob("*_data/images/*"):
        assert b"Exif" not in path.read_bytes()
        with Image.open(path) as image:
            assert not image.getexif()
            assert "comment" not in image.info


def test_labels_are_only_in_the_reference_data(unpacked):
    """Participants' code can read the input data and the ingestion program."""
    labels = (unpacked.folder / "reference_data" / "labels.txt").read_bytes()
    for part in ("input_data", "ingestion_program"):
        assert not any(labels in path.read_bytes() for path in (unpacked.folder / part).rglob("*") if path.is_file())


def test_file_names_are_written_on_request_in_the_order_of_the_labels(telltale_images, tmp_path):
    (tmp_path / "images").mkdir()
    order = np.arange(COUNT)[::-1]
    write_reference(tmp_path, telltale_images, order, show_mistakes=True, file_names=True)
    names = lines(tmp_path / "files.txt")
    assert names == ["/".join(Path(telltale_images.paths[row]).parts[-2:]) for row in order]
    assert [name.partition("/")[0] for name in names] == [
        telltale_images.names[int(label)] for label in lines(tmp_path / "labels.txt")
    ]


def test_class_names_may_have_any_characters(tmp_path):
    """They are in text files, one a line, and on a page."""
    names = ["Äpfel & Birnen", "[#1] 'a': \"b\"", "Rumex × pratensis"]
    draw_folder(tmp_path / "leaves", 2, classes=3, side=16)
    for number, name in enumerate(names, 1):
        (tmp_path / "leaves" / f"Species{number}").rename(tmp_path / "leaves" / name)
    images = load_folder(tmp_path / "leaves")
    unpacked = unpack(build(images, SETTINGS, tmp_path / "a.zip"), tmp_path / "a")
    assert sorted(images.names) == sorted(names)
    assert lines(unpacked.folder / "reference_data" / "classes.txt") == list(images.names)
    assert shown_items((unpacked.folder / "data.md").read_text("utf-8")) == list(images.names)


MARKDOWN = [
    *(
        "hot_dog",
        "__init__",
        "*a* <b>",
        "- x",
        "+ y",
        "a-b",
        "# c",
        "C#",
        "1.",
        "12)",
        "1. x",
        "2) y",
        "a&amp;b",
        "[x](y)",
        "`c`",
    ),
    *("a\\*b", "~~d~~", "===", "> q", "a|b", "***", "---", "sp. alpina", "snake_"),
]


def shown_items(text):
    """The items of a page's list, as Markdown shows them: without the tags of HTML."""
    items = re.findall(r"<li>(.*?)</li>", MarkdownIt("js-default").render(text), re.S)
    return [unescape(re.sub("<[^>]*>", "", item)) for item in items]


@pytest.mark.parametrize("name", MARKDOWN)
def test_class_name_is_shown_as_it_is(name):
    assert shown_items(f"0. {as_markdown(name)}\n1. other") == [name, "other"]


def test_more_than_two_gigabytes_of_images_can_be_written(telltale_images, tmp_path, monkeypatch):
    """A large entry must be announced before it is written. Here the limit is small instead of the images large."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10_000)
    path = build(telltale_images, SETTINGS, tmp_path / "a.zip")
    monkeypatch.undo()
    assert unpack(path, tmp_path / "a").images.shape == (COUNT, SIDE, SIDE, 3)


# --- neutral texts and logo, and the organizer's


def test_bundle_of_other_images_does_not_speak_of_leaves(tmp_path):
    draw_folder(tmp_path / "data", 2, classes=2, side=16)
    for number in (1, 2):
        (tmp_path / "data" / f"Species{number}").rename(tmp_path / "data" / f"tea{number}")
    unpacked = unpack(build(load_folder(tmp_path / "data"), Settings(), tmp_path / "a.zip"), tmp_path / "a")
    texts = [path for path in unpacked.folder.rglob("*") if path.suffix in (".md", ".yaml", ".txt")]
    assert len(texts) >= 10
    for path in texts:
        assert not re.search(r"leaf|leaves|species|photograph|an2dl", path.read_text("utf-8"), re.IGNORECASE), path


def test_default_title_text_and_logo_are_neutral(telltale_images, tmp_path):
    unpacked = unpack(build(telltale_images, Settings(), tmp_path / "a.zip"), tmp_path / "a")
    assert unpacked.yaml["title"] == "Image classification"
    text = (unpacked.folder / "overview.md").read_text("utf-8")
    assert text.startswith("# Image classification\n\nWhich class does an image show? There are 4 classes")
    with Image.open(unpacked.folder / "logo.png") as logo:
        colors = {color for _, color in logo.convert("RGB").getcolors(100)}
    assert not any(green > max(red, blue) for red, green, blue in colors)


def test_text_with_a_byte_order_mark_is_read_without_it(tmp_path):
    (tmp_path / "text.md").write_text("## Hello", "utf-8-sig")
    assert read_text(tmp_path / "text.md") == "## Hello"


def test_text_and_logo_are_those_of_the_organizer(telltale_images, tmp_path):
    Image.new("RGB", (1200, 300), "red").save(tmp_path / "logo.jpg")
    settings = replace(SETTINGS, text="Which *{tea}* is it?", logo=read_logo(tmp_path / "logo.jpg"))
    unpacked = unpack(build(telltale_images, settings, tmp_path / "a.zip"), tmp_path / "a")
    assert "\n\nWhich *{tea}* is it?\n\nYou submit" in (unpacked.folder / "overview.md").read_text("utf-8")
    with Image.open(unpacked.folder / "logo.png") as logo:
        assert (logo.format, logo.size) == ("PNG", (600, 150))
