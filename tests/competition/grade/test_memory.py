"""The images are in memory once: in the ingestion program while a submission runs, and not in the grader."""

import re
import weakref
from pathlib import Path

import numpy as np
import pytest
from helpers import NAMES, ROOT, load_module, stub, stub_zip

import grade_submission
from common.folders import ClassFiles
from common.images import Images
from common.labels import LabelledFolder
from common.machine import free_memory
from competition.grade import grade as grade_module
from competition.grade import worker
from competition.grade.grade import Rules, grade
from competition.grade.worker import run

PROGRAM = ROOT / "competition" / "ingestion_program"
ingestion, runner = load_module(PROGRAM / "ingestion.py"), load_module(PROGRAM / "runner.py")


def large(count=8, side=16):
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return Images(pixels, np.arange(count) % 8, NAMES, ("",) * count)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("shape", "calls"),
    [((4521, 96, 96, 3), 1), ((4522, 96, 96, 3), 2), ((224, 1024, 1024, 3), 6), ((2, 9000, 9000, 3), 2)],
)
def test_a_call_has_all_images_or_as_many_as_fit(shape, calls):
    rows = ingestion.calls_of(shape)
    assert len(rows) == calls
    assert sum(rows, []) == list(range(shape[0]))
    assert len(rows[0]) == 1 or 4 * len(rows[0]) * np.prod(shape[1:]) <= ingestion.CALL_BYTES == grade_module.CALL_BYTES


@pytest.mark.unit
@pytest.mark.parametrize(
    ("limit_mb", "free", "word"), [(1.0, 10**12, "--memory-limit-mb"), (8000.0, 1000, "end other programs")]
)
def test_too_little_memory_is_refused_before_the_submission_runs(tmp_path, monkeypatch, capsys, limit_mb, free, word):
    monkeypatch.setattr(LabelledFolder, "files", lambda self: ClassFiles((), ()))
    monkeypatch.setattr(grade_module, "load_images", lambda listed, size: large(40, 96))
    monkeypatch.setattr(grade_module, "free_memory", lambda: free)
    monkeypatch.setattr(grade_module, "run", None)  # is not called
    arguments = [str(stub_zip(tmp_path / "a.zip", stub())), "--data", "data", "--memory-limit-mb", str(limit_mb)]
    assert grade_submission.main(arguments) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"error: 40 images of 96×96 need 0\.0 GB of memory, .*{word}.*\n", error)


@pytest.mark.unit
def test_free_memory_is_that_of_the_control_group_without_its_cache(tmp_path):
    files = {"max": "3000000\n", "current": "2000000\n", "stat": "anon 5\ninactive_file 300000\nactive_file 200000\n"}
    for name, text in files.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory(tmp_path) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) > 1_500_000
    assert free_memory(tmp_path / "none") > 1_500_000


@pytest.mark.integration
@pytest.mark.parametrize("html", [False, True])
def test_the_grader_has_released_the_images_when_the_submission_runs(tmp_path, monkeypatch, html):
    images, alive = [large()], []
    pixels = weakref.ref(images[0].images)
    monkeypatch.setattr(LabelledFolder, "files", lambda self: ClassFiles((), ()))
    monkeypatch.setattr(grade_module, "load_images", lambda listed, size: images.pop())

    def watched(*arguments):
        alive.append(pixels() is not None)
        return run(*arguments)

    monkeypatch.setattr(grade_module, "run", watched)
    page = tmp_path / "page.html"
    rules = Rules(layout="an2dl2024")
    result = grade(stub_zip(tmp_path / "a.zip", stub("good * 0")), tmp_path, rules, html=page if html else None)
    assert result.scores["accuracy"] == 1 / 8
    assert alive == [False, False]  # prediction and scoring
    assert page.is_file() == html
    if html:
        assert page.read_text("utf-8").count("data:image/jpeg") == 7  # the mistakes are still shown


def resident(key):
    """Megabytes of this process: VmRSS is the present value, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(key))


@pytest.mark.integration
def test_a_tensor_takes_at_most_seven_bytes_a_value_while_it_is_made():
    """126 MB of bytes. Without care they become thirteen times as much: each copy in TensorFlow has floats."""
    runner.as_input(np.zeros((1, 8, 8, 3), np.uint8), "float32", "model")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present value
    before = resident("VmRSS")
    tensor = runner.as_input(np.ones((40, 1024, 1024, 3), np.uint8), "float32", "model")
    peak, kept = resident("VmHWM") - before, resident("VmRSS") - before
    assert tensor.dtype == "float32" and tensor.shape == (40, 1024, 1024, 3)
    assert kept < 5.5 * 126  # TensorFlow frees the last copy of the bytes at its next call
    assert peak < 7.5 * 126


@pytest.mark.integration
def test_the_images_do_not_count_as_written_files(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "DISK_LIMIT", 1_000_000)
    source = "import time\ntime.sleep(1.5)  # the files are measured once a second\n" + stub()
    result = grade(stub_zip(tmp_path / "a.zip", source), rules=Rules(layout="an2dl2024"))  # 1.8 MB of images
    assert result.passed, result.checks


@pytest.mark.integration
def test_thumbnails_do_not_count_as_written_files(tmp_path, monkeypatch, labelled_folder):
    monkeypatch.setattr(worker, "DISK_POLL_SECONDS", 0.0)
    monkeypatch.setattr(worker, "FILES_LIMIT", 20)  # 32 images
    monkeypatch.setattr(worker, "DISK_LIMIT", 150_000)  # 32 thumbnails take 131 kB on the disk, all that is written 106
    rules, page = Rules(layout="an2dl2024"), tmp_path / "page.html"
    result = grade(stub_zip(tmp_path / "a.zip", stub()), labelled_folder, rules, html=page)
    assert result.passed, result.checks
    assert page.is_file()


WRITING = """
import time
for number in range({count}):
    with open("/app/output/{{}}".format(number), "wb") as file:
        file.write(bytes({size}))
time.sleep(0.5)
"""


@pytest.mark.integration
@pytest.mark.usefixtures("isolated")
@pytest.mark.parametrize(
    ("count", "size", "stopped"),
    [(15, 0, ""), (25, 0, "it wrote more than 20 files"), (1, 300_000, ""), (1, 700_000, "it wrote more than 0 MB")],
)
def test_only_what_a_program_writes_counts(tmp_path, monkeypatch, count, size, stopped):
    monkeypatch.setattr(worker, "DISK_POLL_SECONDS", 0.0)
    monkeypatch.setattr(worker, "FILES_LIMIT", 20)
    monkeypatch.setattr(worker, "DISK_LIMIT", 500_000)
    for name in ("program", "input", "output"):
        (tmp_path / "stage" / name).mkdir(parents=True)
    for number in range(100):
        (tmp_path / "stage" / "input" / str(number)).write_bytes(bytes(10_000))
    (tmp_path / "stage" / "program" / "metadata.yaml").write_text("command: python3 /app/program/write.py\n")
    (tmp_path / "stage" / "program" / "write.py").write_text(WRITING.format(count=count, size=size))
    outcome = run(tmp_path / "stage", worker.Limits(30, 1000))
    assert outcome.stopped == stopped, outcome.log
    assert (outcome.code == 0) == (not stopped)
