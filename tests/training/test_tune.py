"""The head search: its table, its trials, interruptions, wrong folders, and several processes in one search."""

import contextlib
import csv
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest
from helpers import ROOT, change, tiny

from common.errors import UserError
from common.images import load_folder
from competition.synthetic import draw_folder
from training import tune
from training.config.override import override
from training.config.record import to_json
from training.data.split import split
from training.fit.features import FeatureSpec, extract_features
from training.fit.finetune import make_backbone
from training.fit.head import Features, HeadSchedule, fit_on_features
from training.model.heads import softmax_head
from training.recipes import load_recipe
from training.recipes.tuned import recipe as tuned
from training.run import Inputs
from training.tune import describe, fixed_fields, search, search_space, settings, trial_recipe

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # each trains several times
TRIALS = 4
BASE = change(tuned, backbone=tiny, validation_split=0.25, head_warmup_epochs=6, views=1)
VALUES = ["size", "dropout", "dense_dropout", "layers", "width", "learning_rate", "activation"]
COLUMNS = ["trial", "val_accuracy", "test_accuracy", *VALUES]
# `python -m training tune tuned` with the tiny backbone: the rest is the command's own.
DRIVER = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from helpers import change, tiny
from training.recipes import tuned
tuned.recipe = change(tuned.recipe, backbone=tiny, validation_split=0.25)
from training.__main__ import main
sys.exit(main(["tune", "tuned", "--set", "finetune.head_warmup_epochs=6", "--set", "head.views=1", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module", autouse=True)
def no_environment():
    """Removes KerasTuner's variables, so that no search of these tests joins one outside of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("KERASTUNER_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def search_data(tmp_path_factory):
    """A folder that holds two folders of class folders, train and test."""
    folder = tmp_path_factory.mktemp("search_data")
    draw_folder(folder / "train", 8, classes=3, side=32)
    draw_folder(folder / "test", 8, classes=3, side=32, seed=5)
    return folder


def searched_in(out, search_data, base=BASE, trials=TRIALS):
    return search(base, Inputs(search_data / "train", "none", search_data / "test"), out, trials)


@pytest.fixture(scope="module")
def searched(search_data, tmp_path_factory):
    """(folder, lines) of a finished search. Tests copy the folder before they change it."""
    out = tmp_path_factory.mktemp("searched") / "search"
    return out, searched_in(out, search_data)


@pytest.fixture
def copied_search(searched, tmp_path):
    return shutil.copytree(searched[0], tmp_path / "search")


@pytest.fixture
def trials_run(monkeypatch):
    """The trials that ran, as their numbers from 0."""
    trials, run_trial = [], tune._HeadTuner.run_trial

    def counted(self, trial, **arguments):
        trials.append(int(trial.trial_id))
        return run_trial(self, trial, **arguments)

    monkeypatch.setattr(tune._HeadTuner, "run_trial", counted)
    return trials


def values_of(out, trial):
    """A trial's values from KerasTuner's own file, not rounded."""
    (record,) = [
        path
        for path in out.glob("trials/trial_*/trial.json")
        if int(path.parent.name.removeprefix("trial_")) == trial - 1
    ]
    return json.loads(record.read_text())["hyperparameters"]["values"]


def lines_of(out):
    """The lines of trials.csv, as text."""
    with open(out / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_trials_csv_lists_every_trial_with_the_best_first(searched):
    out, rows = searched
    assert (out / "trials.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert lines_of(out) == [{key: str(value) for key, value in row.items()} for row in rows]
    assert sorted(row["trial"] for row in rows) == list(range(1, TRIALS + 1))
    assert rows == sorted(rows, key=lambda row: (-row["val_accuracy"], row["trial"]))
    assert len({tuple(row[name] for name in VALUES) for row in rows}) == TRIALS  # no trial is another's copy
    assert len({row["test_accuracy"] for row in rows}) > 1  # or the tests below could not tell trials apart


def test_the_values_of_a_trial_are_in_the_search_space(searched):
    _, rows = searched
    assert [hp.name for hp in search_space().space] == VALUES
    for row in rows:
        assert row["size"] in (75, 96, 128) and row["width"] in (32, 64, 128, 256, 512) and row["layers"] in range(4)
        assert row["activation"] in ("relu", "elu", "gelu", "tanh")
        assert 0 <= row["dropout"] <= 0.6 and 0 <= row["dense_dropout"] <= 0.6 and 1e-4 <= row["learning_rate"] <= 1e-2


def accuracies_by_hand(recipe, search_data):
    """(validation, test) accuracy of the recipe's head, without a cache."""
    images, test = load_folder(search_data / "train"), load_folder(search_data / "test")
    rows = split(images.labels, recipe.data.validation_split, recipe.data.split_seed, images.names)
    train, val = (images.rows(part) for part in rows)
    fields = recipe.finetune
    backbone = make_backbone(recipe, "none")
    spec = FeatureSpec(fields.input_size, recipe.augmentation.transforms, recipe.head.views, recipe.seed)
    views = extract_features(backbone, train.images, spec)
    plain, other = (extract_features(backbone, part.images, FeatureSpec(fields.input_size))[0] for part in (val, test))
    keras.utils.set_random_seed(recipe.seed)
    head = softmax_head(fields, views.shape[-1], len(images.names))
    schedule = HeadSchedule(
        fields.head_warmup_epochs, fields.head_warmup_learning_rate, fields.batch_size, "the learning rate"
    )
    fit_on_features(head, schedule, recipe, Features(views, train.labels, plain, val.labels, images.names))
    pairs = ((plain, val.labels), (other, test.labels))
    return [float((head.predict(x, verbose=0).argmax(axis=-1) == y).mean()) for x, y in pairs]


def test_a_trial_is_the_changed_recipe_trained_by_hand(searched, search_data):
    out, rows = searched
    for row in (rows[0], rows[-1]):
        by_hand = accuracies_by_hand(trial_recipe(BASE, values_of(out, row["trial"])), search_data)
        assert by_hand == pytest.approx([row["val_accuracy"], row["test_accuracy"]], abs=1e-6), row


def test_a_trial_s_recipe_has_its_values_and_changes_nothing_else():
    values = {
        "size": 75,
        "dropout": 0.1 + 0.2,
        "dense_dropout": 0.4,
        "layers": 2,
        "width": 64,
        "learning_rate": 0.005,
        "activation": "elu",
    }
    expected = change(
        BASE,
        resolution_schedule=((0, 75),),
        head_warmup_learning_rate=0.005,
        dropout=0.3,
        dense_dropout=0.4,
        dense_units=(64, 64),
        activation="elu",
    )
    recipe = trial_recipe(BASE, values)
    assert recipe == expected
    assert trial_recipe(BASE, {**values, "layers": 0}).finetune.dense_units == ()
    assert fixed_fields(to_json(recipe)) == fixed_fields(to_json(BASE))
    assert fixed_fields(to_json(change(BASE, batch_size=16))) != fixed_fields(to_json(BASE))


def pasted(base, text):
    """The recipe that `--set` arguments make after a shell has parsed them."""
    words = shlex.split(text)
    assert set(words[::2]) == {"--set"}
    return override(base, words[1::2])


@pytest.mark.parametrize("layers", range(4))
def test_settings_pasted_into_a_command_make_the_trials_recipe(searched, layers):
    for row in searched[1]:
        row = {**row, "layers": layers}
        assert pasted(tuned, settings(row)) == trial_recipe(tuned, row)
        assert pasted(tuned, settings(row)) != tuned


def test_the_best_trials_are_described_each_on_a_line(searched):
    lines = list(describe(searched[1]))
    assert len(lines) == TRIALS
    for line, row in zip(lines, searched[1], strict=True):
        assert line.startswith(f"trial {row['trial']}, val_accuracy {row['val_accuracy']:.4g}, ")
        assert f"activation {row['activation']}" in line
    assert len(list(describe(searched[1] * 4))) == tune.BEST


def test_a_search_without_test_images_has_no_test_accuracy(search_data, tmp_path):
    rows = search(BASE, Inputs(search_data / "train", "none"), tmp_path / "search", 1)
    assert list(rows[0]) == [name for name in COLUMNS if name != "test_accuracy"]


def test_a_finished_search_is_read_again_without_another_trial(copied_search, search_data, searched, trials_run):
    (copied_search / "trials.csv").unlink()
    assert searched_in(copied_search, search_data) == searched[1]
    assert (copied_search / "trials.csv").read_bytes() == (searched[0] / "trials.csv").read_bytes()
    assert trials_run == []


def test_a_search_stopped_in_its_third_trial_continues_with_it(
    searched, search_data, tmp_path, trials_run, monkeypatch, capsys
):
    fit, fitted = tune.fit_on_features, []

    def stop_the_third(*arguments):
        fitted.append(1)
        if len(fitted) == 3:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(tune, "fit_on_features", stop_the_third)
    with pytest.raises(KeyboardInterrupt):
        searched_in(tmp_path / "search", search_data)
    assert not (tmp_path / "search" / "trials.csv").exists()
    assert capsys.readouterr().out.count("\ntrial ") + 1 == 2
    assert searched_in(tmp_path / "search", search_data) == searched[1]
    assert trials_run == [0, 1, 2, 2, 3]
    assert f"continuing the search in {tmp_path / 'search'}" in capsys.readouterr().out
    assert (tmp_path / "search" / "trials.csv").read_bytes() == (searched[0] / "trials.csv").read_bytes()


def test_a_search_stopped_in_its_first_trial_starts_again(searched, search_data, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tune, "fit_on_features", stop)
        with pytest.raises(KeyboardInterrupt):
            searched_in(tmp_path / "search", search_data, trials=1)
    assert searched_in(tmp_path / "search", search_data, trials=1) == [row for row in searched[1] if row["trial"] == 1]


@contextlib.contextmanager
def process(command, output, **environment):
    """A process whose output goes to a file. It is killed at the end of the block."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1", **environment}
    with open(output, "w") as file:
        started = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_until(holds, started, output, seconds=240):
    """Waits. Fails with the process's output if it ends first or takes too long."""
    until = time.monotonic() + seconds
    while not holds():
        assert started.poll() is None, f"ended with {started.returncode}:\n{output.read_text()}"
        assert time.monotonic() < until, f"not after {seconds} s:\n{output.read_text()}"
        time.sleep(0.01)


def driver():
    return [sys.executable, "-c", DRIVER]


def given(search_data, out, trials=TRIALS):
    """The options of a search on the command line."""
    return [
        "--data",
        search_data / "train",
        "--test",
        search_data / "test",
        "--backbone-weights",
        "none",
        "--out",
        out,
        "--trials",
        trials,
    ]


@pytest.fixture(scope="module")
def killed_search(search_data, tmp_path_factory):
    """(folder of a search that was killed after its second trial, its process number, the error of a second search)."""
    folder = tmp_path_factory.mktemp("killed_search")
    out, output = folder / "search", folder / "output"
    with process([*driver(), *given(search_data, out)], output) as started:
        wait_until(lambda: f"trial 1/{TRIALS}" in output.read_text(), started, output)
        started.send_signal(signal.SIGSTOP)  # so that it cannot end before the other one has tried
        with pytest.raises(UserError) as refusal:
            searched_in(out, search_data)
        started.send_signal(signal.SIGCONT)
        wait_until(lambda: f"trial 2/{TRIALS}" in output.read_text(), started, output)
        time.sleep(0.1)
        started.kill()
        assert started.wait(60) == -signal.SIGKILL
    assert f"trial 3/{TRIALS}" not in output.read_text()
    return out, started.pid, str(refusal.value)


def test_a_second_process_is_refused_with_the_number_of_the_first(killed_search):
    out, pid, refusal = killed_search
    assert f"the search {out} is in use by process {pid};" in refusal


def test_a_killed_search_continues_and_gives_the_same_trials(
    killed_search, searched, search_data, tmp_path, trials_run
):
    out = shutil.copytree(killed_search[0], tmp_path / "search")
    assert not (out / "trials.csv").exists()
    searched_in(out, search_data)
    assert trials_run == [2, 3]
    assert (out / "trials.csv").read_bytes() == (searched[0] / "trials.csv").read_bytes()


def test_another_recipe_is_refused(copied_search, search_data):
    with pytest.raises(UserError, match="search with another recipe or --set;.*--out"):
        searched_in(copied_search, search_data, base=change(BASE, batch_size=16))


def test_a_recipe_that_starts_from_another_fine_tuning_is_refused(search_data, tmp_path):
    with pytest.raises(UserError, match="leave out init_from"):
        searched_in(tmp_path / "search", search_data, base=change(BASE, init_from=BASE.finetune))


def test_another_number_of_trials_is_refused(copied_search, search_data):
    with pytest.raises(UserError, match="search with another --trials;"):
        searched_in(copied_search, search_data, trials=TRIALS + 1)


def test_other_images_are_refused(copied_search, search_data):
    with pytest.raises(UserError, match="search with another --data;"):
        search(BASE, Inputs(search_data / "test", "none"), copied_search, TRIALS)


def test_other_backbone_weights_are_refused(copied_search, search_data, tmp_path):
    weights = tmp_path / "other.weights.h5"
    tiny("none").save_weights(weights)
    with pytest.raises(UserError, match="search with another --backbone-weights;"):
        search(BASE, Inputs(search_data / "train", str(weights), search_data / "test"), copied_search, TRIALS)


def test_a_finished_search_is_refused_with_other_test_images(search_data, tmp_path):
    search(BASE, Inputs(search_data / "train", "none"), tmp_path / "search", 1)
    with pytest.raises(UserError, match="search with another --test;"):
        search(BASE, Inputs(search_data / "train", "none", search_data / "test"), tmp_path / "search", 1)


def test_a_folder_with_other_files_is_refused_and_not_changed(search_data, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    with pytest.raises(UserError, match="--out must be .*letters has other files"):
        searched_in(tmp_path / "letters", search_data)
    assert sorted(path.name for path in (tmp_path / "letters").iterdir()) == [".lock", "mine.txt"]


@pytest.mark.parametrize("text", ["", '{"ongoing_trials": {', "{}", "[]", "null", "\x00\x01"])
def test_a_damaged_record_of_the_tuner_is_one_clear_error(copied_search, search_data, text):
    assert json.loads((copied_search / "trials" / "oracle.json").read_text())["end_order"]  # the file that counts
    (copied_search / "trials" / "oracle.json").write_text(text)
    with pytest.raises(UserError, match="the search in .* is damaged .*remove the folder and start again"):
        searched_in(copied_search, search_data)


def test_a_damaged_trial_is_one_clear_error(copied_search, search_data):
    sorted(copied_search.glob("trials/trial_*/trial.json"))[0].write_text('{"trial_id": ')
    with pytest.raises(UserError, match="the search in .* is damaged"):
        searched_in(copied_search, search_data)


def test_a_damaged_record_of_the_search_is_one_clear_error(copied_search, search_data):
    (copied_search / "search.json").write_text('{"recipe": ')
    with pytest.raises(UserError, match=r"search\.json is damaged \(.*\); remove the folder and start again$"):
        searched_in(copied_search, search_data)


@pytest.mark.parametrize(
    "base",
    [
        load_recipe("online"),
        change(BASE, resolution_schedule=((1, 96),)),
        change(BASE, head_warmup_epochs=0, kind="quasi_svm"),
    ],
    ids=["online", "with epochs", "without warm-up"],
)
def test_a_recipe_that_trains_its_backbone_or_no_softmax_head_is_refused(base, search_data, tmp_path):
    with pytest.raises(UserError, match="head_warmup_epochs must be above 0 .*0 epochs"):
        searched_in(tmp_path / "search", search_data, base=base)
    assert not (tmp_path / "search").exists()


def test_a_recipe_without_a_validation_part_is_refused(search_data, tmp_path):
    with pytest.raises(UserError, match="validation_split must be above 0"):
        searched_in(tmp_path / "search", search_data, base=change(BASE, validation_split=0.0))
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize("trials", [2, 4])  # KerasTuner itself gives up after three failures
def test_a_recipe_whose_trials_all_fail_is_one_clear_error(search_data, tmp_path, trials):
    with pytest.raises(UserError, match="Species9|trial.json"):
        searched_in(tmp_path / "search", search_data, base=change(BASE, class_repeats={"Species9": 2}), trials=trials)
    assert not (tmp_path / "search" / "trials.csv").exists()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextlib.contextmanager
def several(command, folder, names, port, ready=lambda name: None):
    """The chief and the workers of one search: name → (process, file of its output)."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in names:
            variables = {
                "KERASTUNER_TUNER_ID": name,
                "KERASTUNER_ORACLE_IP": "127.0.0.1",
                "KERASTUNER_ORACLE_PORT": port,
            }
            output = folder / f"{name}.txt"
            found[name] = stack.enter_context(process(command, output, **variables)), output
            ready(found)
        yield found


def all_end(found, seconds=240):
    """Waits for all and returns their outputs. Fails with the outputs if one fails or hangs."""
    until = time.monotonic() + seconds
    while any(started.poll() is None for started, _ in found.values()):
        failed = [name for name, (started, _) in found.items() if started.poll()]
        texts = {name: output.read_text()[-3000:] for name, (_, output) in found.items()}
        assert not failed, f"{failed} failed: {texts}"
        assert time.monotonic() < until, f"not after {seconds} s: {texts}"
        time.sleep(0.1)
    assert {name: started.returncode for name, (started, _) in found.items()} == dict.fromkeys(found, 0)
    return {name: output.read_text() for name, (_, output) in found.items()}


def trials_in(text):
    return [line.split("/")[0] for line in text.splitlines() if line.startswith("trial ") and "min left" in line]


COMMAND = [sys.executable, "-m", "training", "tune", "tuned"]
COMMAND += ["--set", "finetune.head_warmup_epochs=2", "--set", "head.views=1"]


@pytest.mark.parametrize("command", [driver(), COMMAND], ids=["tiny", "InceptionV3"])
def test_a_chief_and_two_workers_share_one_search(command, search_data, tmp_path):
    trials, out = 8, tmp_path / "search"

    def chief_first(found):
        wait_until((out / "search.json").exists, *found["chief"])

    names = ["chief", "worker0", "worker1"]
    with several([*command, *given(search_data, out, trials)], tmp_path, names, free_port(), chief_first) as found:
        texts = all_end(found)
    rows = lines_of(out)
    assert sorted(int(row["trial"]) for row in rows) == list(range(1, trials + 1))
    assert list(rows[0]) == COLUMNS
    assert [float(row["val_accuracy"]) for row in rows] == sorted(
        (float(row["val_accuracy"]) for row in rows), reverse=True
    )
    of_workers = trials_in(texts["worker0"]) + trials_in(texts["worker1"])
    assert sorted(of_workers) == [f"trial {number}" for number in range(1, trials + 1)]
    assert trials_in(texts["chief"]) == []
    assert f"done: {out / 'trials.csv'}; next: python -m training run tuned --set" in texts["chief"]
    assert not any("done:" in texts[name] for name in ("worker0", "worker1"))


def test_a_worker_that_starts_before_the_chief_waits_for_it(search_data, tmp_path, searched):
    out = tmp_path / "search"

    def worker_first(found):
        if "chief" not in found:
            wait_until(out.exists, *found["worker0"])
            time.sleep(3)  # it has started, and no chief hands out trials

    with several(
        [*driver(), *given(search_data, out)], tmp_path, ["worker0", "chief"], free_port(), worker_first
    ) as found:
        texts = all_end(found)
    assert len(trials_in(texts["worker0"])) == TRIALS
    # The same trials, up to the single precision of the processes' messages.
    for row, alone in zip(lines_of(out), searched[1], strict=True):
        assert {key: row[key] for key in ("trial", "size", "layers", "width", "activation")} == {
            key: str(alone[key]) for key in ("trial", "size", "layers", "width", "activation")
        }
        for key in ("val_accuracy", "test_accuracy", "dropout", "dense_dropout", "learning_rate"):
            assert float(row[key]) == pytest.approx(alone[key], rel=1e-4, abs=1e-6)


def as_worker(monkeypatch):
    for name, value in zip(tune.VARIABLES, ("worker0", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "other"),
    [("recipe or --set", {"base": change(BASE, batch_size=16)}), ("--trials", {"trials": 9}), ("--data", {})],
)
def test_a_worker_with_another_command_is_refused(copied_search, search_data, monkeypatch, tmp_path, name, other):
    """Its trials would be ranked together with those of the chief."""
    as_worker(monkeypatch)
    if name == "--data":
        draw_folder(tmp_path / "data" / "train", 8, classes=3, side=32, seed=9)
        shutil.copytree(search_data / "test", tmp_path / "data" / "test")
        search_data = tmp_path / "data"
    with pytest.raises(UserError, match=f"the chief's search in .* has another {name}; give all processes the same"):
        searched_in(copied_search, search_data, **other)


def test_a_worker_without_a_chief_ends_with_one_clear_error(search_data, tmp_path, monkeypatch):
    as_worker(monkeypatch)
    monkeypatch.setattr(tune, "CHIEF_SECONDS", 0)
    with pytest.raises(UserError, match="no chief has begun a search in .*; start it"):
        searched_in(tmp_path / "search", search_data)


def test_a_worker_without_the_chief_s_address_is_one_clear_error(search_data, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    with pytest.raises(UserError, match="KERASTUNER_ORACLE_IP"):
        searched_in(tmp_path / "search", search_data, trials=1)


def test_a_chief_without_a_port_is_one_clear_error(search_data, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(UserError, match="KERASTUNER_ORACLE_PORT"):
        searched_in(tmp_path / "search", search_data, trials=1)


def test_the_folder_of_a_search_has_what_the_documentation_says(searched):
    assert {path.name for path in Path(searched[0]).iterdir()} == {
        ".lock",
        "search.json",
        "trials",
        "trials.csv",
    }
