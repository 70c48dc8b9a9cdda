"""The command line of training: output, exit codes and interruptions."""

import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT

from training import __main__ as cli
from training import recipes
from training.__main__ import main
from training.commands import evaluate, images, train
from training.commands.options import EXAMPLES
from training.evaluate.rows import reported
from training.recipes import recipe_names, recipe_summary
from training.run_folder import Record

pytestmark = pytest.mark.integration


def training(*arguments):
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def refused(done, *named):
    """Asserts exit code 2, nothing on stdout, and one line on stderr with the named patterns."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for pattern in named:
        assert re.search(pattern, done.stderr)


def test_help_shows_examples():
    done = training("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m training run inception_svm --data" in done.stdout
    assert "exit codes" in done.stdout


EXPERIMENTS = ("auto", "class-bias", "compare", "crossval", "label-errors", "mistakes", "paired", "run", "tune")
COMMANDS = (*EXPERIMENTS, "deepweeds", "list", "predict", "split")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m training {command}" in capsys.readouterr().out


def test_every_example_is_understood(capsys, monkeypatch):
    done = []
    for name in COMMANDS:
        function = f"_{name.replace('-', '_')}"
        (module,) = (module for module in (cli, train, evaluate, images) if hasattr(module, function))
        monkeypatch.setattr(module, function, lambda options, name=name: done.append(name))
    monkeypatch.setattr(cli, "_choose_backend", done.append)
    lines = [line.strip() for line in EXAMPLES.splitlines() if line.strip().startswith("python -m training ")]
    for line in lines:
        assert cli.main(shlex.split(line)[3:]) == 0
    assert set(done) == {*COMMANDS, None, "jax"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["walk"],
        ["run", "inception_svm"],
        ["split", "--data", "x", "--out", "y", "--seed", "z"],
        ["tune", "tuned", "--data", "x", "--out", "y", "--trials", "0"],
        ["tune", "tuned", "--data", "x", "--out", "y", "--trials", "-3"],
        ["mistakes", "run"],
        ["mistakes", "run", "--data", "x", "--count", "0"],
        ["split", "--data", "x", "--out", "y", "--seed", "-1"],
        ["split", "--data", "x", "--out", "y", "--seed", "4294967296"],
        ["run", "online", "--data", "x", "--seeds", "0"],
        ["crossval", "online", "--data", "x", "--seeds", "0"],
        ["predict", "--data", "x", "--out", "y", "--shard-size", "0"],
        ["predict", "--data", "x", "--out", "y", "--top", "0"],
        ["predict", "--data", "x", "--out", "y", "--ray", "local", "--workers", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m training" in capsys.readouterr().err


def listed(capsys):
    """Title → names of the recipes below it, and name → its lines, as `list` prints them."""
    assert main(["list"]) == 0
    groups, lines_of = {}, {}
    for line in capsys.readouterr().out.splitlines():
        indent = len(line) - len(line.lstrip())
        if line and not indent:
            groups[line] = title = []
        elif indent == 2:
            title.append(line.strip())
            lines_of[line.strip()] = lines = []
        elif line:
            lines.append(line.strip())
    return groups, lines_of


def test_list_has_every_recipe_once_with_its_whole_summary(capsys):
    groups, lines_of = listed(capsys)
    start, report, ours, ablations = groups.values()
    assert sorted([*report, *ours, *ablations]) == recipe_names()
    for name in recipe_names():
        assert lines_of[name][0] == recipe_summary(name)
        assert len(recipe_summary(name).split()) > 2


def test_list_starts_with_three_commands_that_are_understood(capsys, monkeypatch):
    groups, _ = listed(capsys)
    commands = [line.split("    ")[0] for line in groups["Start here"]]
    assert list(groups)[0] == "Start here"
    done = []
    for name in ("_auto", "_run"):
        monkeypatch.setattr(train, name, lambda options: done.append(getattr(options, "recipe", [])))
    assert [main(shlex.split(command)[3:]) for command in commands] == [0, 0, 0]
    assert done == [[], ["inception_svm"], ["released"]]


def test_max_images_reaches_the_run(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(train, "_train", lambda recipe, name, inputs, out: given.append(inputs.max_images))
    for options in ([], ["--max-images", "7"]):
        assert main(["run", "online", "--data", "x", "--out", str(tmp_path / "out"), *options]) == 0
    assert given == [None, 7]


def test_list_has_the_reports_recipes_in_its_order(capsys):
    _, report, ours, ablations = listed(capsys)[0].values()
    order = list(reported())
    for names in (report, ablations):
        assert names == [name for name in order if name in names]
    assert not set(ours) & set(order)
    assert {"scratch_vgg", "inception_svm"} <= set(report)
    assert {"released", "released_full"} <= set(ours) and "smote" in ablations


@pytest.mark.parametrize(
    ("source", "summary"),
    [
        ("recipe = None", "no description"),
        ('""" """', "no description"),
        ('"""First line\nand second.\n\nMore."""', "First line and second."),
        ('"""A recipe"""\nrecipe = (', "no description: mine.py has a syntax error in line 2"),
    ],
)
def test_a_recipe_of_ones_own_is_listed_whatever_its_docstring(source, summary, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "HERE", tmp_path)
    (tmp_path / "mine.py").write_text(source)
    shutil.copy(Path(recipes.__file__).with_name("ablations.py"), tmp_path)
    groups, lines_of = listed(capsys)
    assert groups["Ours"] == ["mine"]
    assert lines_of["mine"] == [summary]


@pytest.mark.parametrize(("name", "exit_code"), [("jax", 2), ("tensorflow", 0), (None, 0)])
def test_another_backend_than_the_imported_one_is_refused(name, exit_code, monkeypatch, capsys):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(cli, "_is_installed", lambda module: True)
    monkeypatch.setattr(train, "_run", lambda options: None)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    arguments = ["run", "released", "--data", "x", *(["--backend", name] if name else [])]
    assert main(arguments) == exit_code
    error = capsys.readouterr().err
    assert error == "" if exit_code == 0 else re.match("error: --backend jax: .*tensorflow; start a new process", error)
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_an_unknown_backend_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "released", "--data", "x", "--backend", "abacus"])
    assert stop.value.code == 2


def test_an_unknown_recipe_is_one_line_on_stderr(tmp_path):
    done = training("run", "inception_smv", "--data", tmp_path, "--out", tmp_path / "out")
    refused(done, "inception_smv", "did you mean .*inception_svm", "training list")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run"], "names of recipes, or --all"),
        (["run", "online", "--all"], "names of recipes, or --all"),
        (["run", "online", "smote"], "--out is the folder of one run; .*--runs"),
        (["run", "online", "--seeds", "2"], "--out is the folder of one run; .*--runs"),
        (["run", "leaderboard"], "leaderboard is now called released"),
        (["run", "inception_svm", "--set", "batsh=3"], "--set batsh=3: no field batsh; did you mean "),
        (["run", "inception_svm", "--set", "finetune.batsh_size=3"], "did you mean .*finetune.batch_size"),
        (["run", "inception_svm", "--set", "batch=3"], "batch is now called finetune.batch_size"),
        (["run", "inception_svm", "--set", "finetune.batch_size=0"], "batch_size must be .*from 1, got 0"),
        (["run", "inception_svm"], "nowhere"),
        (["crossval", "inception_svm"], "nowhere"),
        (["crossval", "inception_svm", "--folds", "1"], "2 folds"),
        (["tune", "tuned"], "nowhere"),
        (["tune", "inception_svm"], "head_warmup_epochs"),
        (["split"], "nowhere"),
        (["split", "--validation-split", "2"], "nowhere"),
        (["split", "--validation", "2"], "nowhere"),  # the earlier name
        (["run", "inception_svm", "--set", "seed=4294967296"], "seed must be a whole number from 0 to 4294967295"),
        (["run", "inception_svm", "--set", "data.split_seed=-1"], "split_seed must be a whole number from 0"),
    ],
)
def test_wrong_input_is_one_line_on_stderr(arguments, named, tmp_path, capsys):
    code = main([*arguments, "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    done = capsys.readouterr()
    refused(subprocess.CompletedProcess([], code, done.out, done.err), named)
    assert list(tmp_path.iterdir()) == []


def test_deepweeds_needs_a_source(tmp_path, capsys):
    assert main(["deepweeds", "--out", str(tmp_path / "out")]) == 2
    assert re.search("--images and --labels, or --download", capsys.readouterr().err)


def test_deepweeds_takes_one_source_only(tmp_path, capsys):
    both = ["--download", str(tmp_path / "new"), "--images", str(tmp_path)]
    assert main(["deepweeds", *both, "--out", str(tmp_path / "out")]) == 2
    assert "leave out --images and --labels" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--size=64", "--backbone-weights=imagenet", "--cache=cache"])
def test_label_errors_refuses_what_has_no_effect_with_a_run(option, tmp_path, capsys):
    run = ["--folder", str(tmp_path), "--data", str(tmp_path)]
    assert main(["label-errors", *run, option]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {option.partition('=')[0]} has no effect with --folder")


def test_a_path_that_cannot_be_written_is_one_line_on_stderr(leaf_folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["split", "--data", str(leaf_folder), "--out", str(tmp_path / "file" / "out")]) == 2
    error = capsys.readouterr().err
    assert re.match("error: .*file.*check the path", error)
    assert error.count("\n") == 1


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }


def test_split_copies_every_image_into_one_of_two_parts(leaf_folder, tmp_path):
    (leaf_folder / "Species2" / "notes.txt").write_text("no image")
    out = tmp_path / "new" / "split"
    done = training("split", "--data", leaf_folder, "--out", out, "--validation-split", "0.25")
    assert (done.returncode, done.stderr) == (0, "")
    assert "notes.txt" in done.stdout
    train, validation = files(out / "train"), files(out / "validation")
    expected = files(leaf_folder)
    del expected["Species2/notes.txt"]
    assert {**train, **validation} == expected
    assert len(train) + len(validation) == len(expected) == 24
    assert [sum(name.startswith(f"Species{n}/") for name in validation) for n in (1, 2, 3)] == [2, 2, 2]
    assert "18 images" in done.stdout
    assert "6 images" in done.stdout
    assert [path.name for path in out.parent.iterdir()] == ["split"]


def test_split_depends_on_the_seed(leaf_folder, tmp_path):
    parts = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["split", "--data", str(leaf_folder), "--out", str(tmp_path / name), "--seed", seed]) == 0
        parts.append(set(files(tmp_path / name / "validation")))
    assert parts[0] == parts[1] != parts[2]


def test_split_overwrites_nothing(leaf_folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert main(["split", "--data", str(leaf_folder), "--out", str(tmp_path / "out")]) == 2
    assert "exists" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def restore_ctrl_c():
    """Lets a child process receive Ctrl-C, which commands of a background shell ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes to wait on")
def test_ctrl_c_ends_without_a_traceback(tmp_path):
    pipe = tmp_path / "labels.csv"
    os.mkfifo(pipe)
    command = [
        sys.executable,
        "-m",
        "training",
        "deepweeds",
        "--images",
        tmp_path,
        "--labels",
        pipe,
        "--out",
        tmp_path / "out",
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=restore_ctrl_c) as child:
        try:
            writer = open_for_writing(pipe, child)
            time.sleep(0.5)  # until the child waits in read(): just before it, Python would handle the signal after it
            child.send_signal(signal.SIGINT)
            error = child.communicate(timeout=60)[1]
            os.close(writer)
        finally:
            child.kill()
    assert child.returncode == 130
    assert "interrupted" in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


def open_for_writing(pipe, child):
    """Opens a pipe for writing as soon as the process reads it."""
    while child.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.02)
    raise AssertionError(f"the process ended with {child.returncode} before it read")


# The command line with a backbone that trains within seconds instead of a recipe's own.
TINY = """
import sys
sys.path[:0] = sys.argv[1:3]
from helpers import change, shrunk, tiny
from training import __main__ as cli
from training.commands import train
from training.config.recipe import Recipe
from training.model import backbones
backbones.tiny = tiny
train.load_recipe = lambda name: change(shrunk(Recipe()), warmup_epochs=0.5)
sys.exit(cli.main(sys.argv[3:]))
"""


def test_a_run_that_ctrl_c_interrupted_is_continued(leaf_folder, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", TINY, ROOT, ROOT / "tests", "run", "tiny", "--data", leaf_folder, "--out", out]
    command += ["--backbone-weights", "none"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=restore_ctrl_c
    ) as child:
        try:
            for line in child.stdout:
                if line.startswith("epoch 2/2"):
                    child.send_signal(signal.SIGINT)
                    break
            error = child.communicate(timeout=120)[1]
        finally:
            child.kill()
    assert child.returncode == 130, error
    assert "interrupted" in error
    assert "Traceback" not in error
    assert (out / "checkpoint.npz").exists()
    assert not (out / "metrics.json").exists()

    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "continuing the run" in done.stdout
    assert "epoch 1/2" not in done.stdout
    assert "epoch 2/2" in done.stdout
    assert f"build_submission.py --run {out}" in done.stdout
    assert (out / "metrics.json").exists()


@pytest.mark.parametrize(
    ("fast", "settings", "expected"),
    [
        ("bfloat16", [], ("mixed_bfloat16", "bfloat16")),
        ("float32", [], ("float32", "float32")),
        ("bfloat16", ["finetune.precision=float32"], ("float32", "float32")),
        ("bfloat16", ["head.feature_precision=float32"], ("mixed_bfloat16", "float32")),
        ("float32", ["head.feature_precision=bfloat16"], ("float32", "bfloat16")),
        ("bfloat16", ["prediction.precision=bfloat16"], ("mixed_bfloat16", "bfloat16")),
        ("float32", ["finetune.precision=mixed_bfloat16"], ("mixed_bfloat16", "float32")),
    ],
)
def test_recipes_use_the_faster_precision_unless_one_is_set(monkeypatch, tmp_path, fast, settings, expected):
    from training.config.override import override
    from training.config.recipe import Recipe
    from training.fit import precision

    monkeypatch.setattr(precision, "fastest", lambda: fast)
    recipe = train.in_precision(override(Recipe(), settings), settings, tmp_path / "new")
    assert (recipe.finetune.precision, recipe.head.feature_precision) == expected


@pytest.mark.parametrize("begun", ["bfloat16", "float32", "finetune only"])
def test_a_run_is_continued_in_its_precision_on_every_processor(monkeypatch, tmp_path, begun):
    from training.config.override import in_bfloat16, override
    from training.fit import precision
    from training.recipes.released import recipe

    started = recipe if begun == "float32" else in_bfloat16(recipe)
    if begun == "finetune only":  # as earlier versions
        started = dataclasses.replace(started, head=recipe.head)
    fields = {"classes": ("a", "b"), "image_shape": (96, 96), "images": 2, "data_sha256": "", "versions": {}}
    record = Record(name="inception_svm", recipe=started, backbone_weights="none", **fields)
    (tmp_path / "run.json").write_text(json.dumps(record.to_json()), "utf-8")
    monkeypatch.setattr(precision, "fastest", lambda: "bfloat16" if begun == "float32" else "float32")
    assert train.in_precision(recipe, [], tmp_path) == started
    own = override(recipe, ["head.feature_precision=float32"])
    continued = train.in_precision(own, ["head.feature_precision=float32"], tmp_path)
    assert (continued.finetune, continued.head) == (started.finetune, recipe.head)
    own = override(recipe, ["finetune.init_from.precision=float32"])
    assert train.in_precision(own, ["finetune.init_from.precision=float32"], tmp_path) == own


@pytest.mark.parametrize("setting", ["data.folds=10", "checkpoint=best_val_loss", "data.validation_split=0.5"])
def test_crossval_refuses_settings_that_it_makes_itself(tmp_path, setting, capsys):
    assert cli.main(["crossval", "online", "--data", str(tmp_path), "--set", setting]) == 2
    assert f"crossval sets {setting.partition('=')[0]} itself; give --folds" in capsys.readouterr().err
