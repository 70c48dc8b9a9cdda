"""The search: its table, what a trial is, interruptions, folders that do not fit, and several processes at one search."""

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
from dataclasses import replace
from pathlib import Path

import keras
import pytest
from conftest import ROOT, tiny

from competition.drawings import draw_folder
from training import tune
from training.architectures import softmax_head
from training.data import load_folder, split
from training.errors import UserError
from training.features import extract
from training.fit import HeadSchedule, fit_on_features, make_backbone
from training.recipe import override
from training.recipes.online import recipe as online
from training.recipes.tuned import recipe as tuned
from training.tune import changed, describe, search, settings, space

TRIALS = 4
BASE = replace(tuned, backbone=tiny, validation=0.25, frozen_epochs=6, head_views=1)
VALUES = ["size", "dropout", "dense_dropout", "layers", "width", "learning_rate", "activation"]
COLUMNS = ["trial", "val_accuracy", "test_accuracy", *VALUES]
# `python -m training tune tuned` with the tiny backbone: the rest is the command's own.
DRIVER = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from dataclasses import replace
from conftest import tiny
from training.recipes import tuned
tuned.recipe = replace(tuned.recipe, backbone=tiny, validation=0.25)
from training.__main__ import main
sys.exit(main(["tune", "tuned", "--set", "frozen_epochs=6", "--set", "head_views=1", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module", autouse=True)
def alone():
    """No search of these tests takes part in one outside."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("KERASTUNER_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with the class folders train and test."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_folder(folder / "train", 8, classes=3, side=32)
    draw_folder(folder / "test", 8, classes=3, side=32, seed=5)
    return folder


def searched_in(out, drawn, base=BASE, trials=TRIALS):
    return search(base, drawn / "train", "none", out, trials, test=drawn / "test")


@pytest.fixture(scope="module")
def searched(drawn, tmp_path_factory):
    """(folder, lines) of a finished search; tests copy the folder to change it."""
    out = tmp_path_factory.mktemp("searched") / "search"
    return out, searched_in(out, drawn)


@pytest.fixture
def copied(searched, tmp_path):
    return shutil.copytree(searched[0], tmp_path / "search")


@pytest.fixture
def ran(monkeypatch):
    """The trials that ran, as their positions in the search."""
    trials, run_trial = [], tune._HeadTuner.run_trial

    def counted(self, trial, **arguments):
        trials.append(int(trial.trial_id))
        return run_trial(self, trial, **arguments)

    monkeypatch.setattr(tune._HeadTuner, "run_trial", counted)
    return trials


def values_of(out, trial):
    """What KerasTuner kept of a trial's values, not rounded."""
    (record,) = [path for path in out.glob("trials/trial_*/trial.json") if int(path.parent.name.removeprefix("trial_")) == trial - 1]
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


def test_the_values_of_a_trial_are_in_the_reports_space(searched):
    _, rows = searched
    assert [hp.name for hp in space().space] == VALUES
    for row in rows:
        assert row["size"] in (75, 96, 128) and row["width"] in (32, 64, 128, 256, 512) and row["layers"] in range(4)
        assert row["activation"] in ("relu", "elu", "gelu", "tanh")
        assert 0 <= row["dropout"] <= 0.6 and 0 <= row["dense_dropout"] <= 0.6 and 1e-4 <= row["learning_rate"] <= 1e-2


def accuracies_by_hand(recipe, drawn):
    """(validation, test) accuracy of the recipe's head, from the parts that a search is made of, without a cache."""
    images = load_folder(drawn / "train")
    tested = load_folder(drawn / "test")
    fitting, held = (images.rows(rows) for rows in split(images.labels, recipe.validation, recipe.split_seed, images.names))
    backbone = make_backbone(recipe, "none")
    views = extract(backbone, fitting.images, recipe.size, recipe.augmentation, recipe.head_views, recipe.seed)
    plain, other = (extract(backbone, part.images, recipe.size)[0] for part in (held, tested))
    keras.utils.set_random_seed(recipe.seed)
    head = softmax_head(recipe, views.shape[-1], len(images.names))
    schedule = HeadSchedule(recipe.frozen_epochs, recipe.frozen_learning_rate, recipe.batch, "frozen_learning_rate")
    fit_on_features(head, schedule, recipe, views, fitting.labels, plain, held.labels, images.names)
    pairs = ((plain, held.labels), (other, tested.labels))
    return [float((head.predict(x, verbose=0).argmax(axis=-1) == y).mean()) for x, y in pairs]


def test_a_trial_is_the_changed_recipe_trained_by_hand(searched, drawn):
    out, rows = searched
    for row in (rows[0], rows[-1]):
        by_hand = accuracies_by_hand(changed(BASE, values_of(out, row["trial"])), drawn)
        assert by_hand == pytest.approx([row["val_accuracy"], row["test_accuracy"]], abs=1e-6), row


def test_changed_sets_what_the_trial_says_and_nothing_else():
    values = {"size": 75, "dropout": 0.1 + 0.2, "dense_dropout": 0.4, "layers": 2, "width": 64, "learning_rate": 0.005, "activation": "elu"}
    recipe = changed(BASE, values)
    fields = {"phases": ((0, 75),), "dropout": 0.3, "dense_dropout": 0.4, "dense": (64, 64), "activation": "elu"}
    assert recipe == replace(BASE, frozen_learning_rate=0.005, **fields)
    assert changed(BASE, {**values, "layers": 0}).dense == ()


def pasted(base, text):
    """The recipe that a shell and the command line make of `--set` arguments."""
    words = shlex.split(text)
    assert set(words[::2]) == {"--set"}
    return override(base, words[1::2])


@pytest.mark.parametrize("layers", range(4))
def test_settings_pasted_into_a_command_make_the_trials_recipe(searched, layers):
    for row in searched[1]:
        row = {**row, "layers": layers}
        assert pasted(tuned, settings(row)) == changed(tuned, row)
        assert pasted(tuned, settings(row)) != tuned


def test_the_best_trials_are_described_each_on_a_line(searched):
    lines = list(describe(searched[1]))
    assert len(lines) == TRIALS
    for line, row in zip(lines, searched[1], strict=True):
        assert line.startswith(f"trial {row['trial']}, val_accuracy {row['val_accuracy']:.4g}, ")
        assert f"activation {row['activation']}" in line
    assert len(list(describe(searched[1] * 4))) == tune.BEST


def test_a_search_without_test_images_has_no_test_accuracy(drawn, tmp_path):
    rows = search(BASE, drawn / "train", "none", tmp_path / "search", 1)
    assert list(rows[0]) == [name for name in COLUMNS if name != "test_accuracy"]


def test_a_finished_search_is_read_again_without_another_trial(copied, drawn, searched, ran):
    (copied / "trials.csv").unlink()
    assert searched_in(copied, drawn) == searched[1]
    assert (copied / "trials.csv").read_bytes() == (searched[0] / "trials.csv").read_bytes()
    assert ran == []


def test_a_search_stopped_in_its_third_trial_goes_on_with_it(searched, drawn, tmp_path, ran, monkeypatch, capsys):
    fit, fitted = tune.fit_on_features, []

    def stop_the_third(*arguments):
        fitted.append(1)
        if len(fitted) == 3:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(tune, "fit_on_features", stop_the_third)
    with pytest.raises(KeyboardInterrupt):
        searched_in(tmp_path / "search", drawn)
    assert not (tmp_path / "search" / "trials.csv").exists()
    assert capsys.readouterr().out.count("\ntrial ") + 1 == 2
    assert searched_in(tmp_path / "search", drawn) == searched[1]
    assert ran == [0, 1, 2, 2, 3]
    assert f"going on with the search in {tmp_path / 'search'}" in capsys.readouterr().out
    assert (tmp_path / "search" / "trials.csv").read_bytes() == (searched[0] / "trials.csv").read_bytes()


def test_a_search_stopped_in_its_first_trial_starts_again(searched, drawn, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tune, "fit_on_features", stop)
        with pytest.raises(KeyboardInterrupt):
            searched_in(tmp_path / "search", drawn, trials=1)
    assert searched_in(tmp_path / "search", drawn, trials=1) == [row for row in searched[1] if row["trial"] == 1]


@contextlib.contextmanager
def process(command, output, **environment):
    """A process of its own whose output goes to a file; killed at the end of the block, whatever happens."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONUNBUFFERED": "1", **environment}
    with open(output, "w") as file:
        started = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_until(holds, started, output, seconds=240):
    """Waits; fails with the process's output where it ends first or takes too long."""
    until = time.monotonic() + seconds
    while not holds():
        assert started.poll() is None, f"ended with {started.returncode}:\n{output.read_text()}"
        assert time.monotonic() < until, f"not after {seconds} s:\n{output.read_text()}"
        time.sleep(0.01)


def driver():
    return [sys.executable, "-c", DRIVER]


def given(drawn, out, trials=TRIALS):
    """What a search is told, on the command line."""
    return ["--data", drawn / "train", "--test", drawn / "test", "--backbone-weights", "none", "--out", out, "--trials", trials]


@pytest.fixture(scope="module")
def killed(drawn, tmp_path_factory):
    """(folder of a search that SIGKILL ended after its second trial, its process number, what another got meanwhile)."""
    folder = tmp_path_factory.mktemp("killed")
    out, output = folder / "search", folder / "output"
    with process([*driver(), *given(drawn, out)], output) as started:
        wait_until(lambda: f"trial 1/{TRIALS}" in output.read_text(), started, output)
        started.send_signal(signal.SIGSTOP)  # so that it cannot be done before the other one has looked
        with pytest.raises(UserError) as refusal:
            searched_in(out, drawn)
        started.send_signal(signal.SIGCONT)
        wait_until(lambda: f"trial 2/{TRIALS}" in output.read_text(), started, output)
        time.sleep(0.1)
        started.kill()
        assert started.wait(60) == -signal.SIGKILL
    assert f"trial 3/{TRIALS}" not in output.read_text()
    return out, started.pid, str(refusal.value)


def test_a_second_process_is_refused_and_told_who_holds_the_search(killed):
    out, pid, refusal = killed
    assert f"the search {out} is in use by process {pid};" in refusal


def test_a_killed_search_goes_on_and_ends_as_if_it_had_not_been(killed, searched, drawn, tmp_path, ran):
    out = shutil.copytree(killed[0], tmp_path / "search")
    assert not (out / "trials.csv").exists()
    searched_in(out, drawn)
    assert ran == [2, 3]
    assert (out / "trials.csv").read_bytes() == (searched[0] / "trials.csv").read_bytes()


def test_another_recipe_is_refused(copied, drawn):
    with pytest.raises(UserError, match="holds a search with another recipe;.*--out"):
        searched_in(copied, drawn, base=replace(BASE, batch=16))


def test_another_number_of_trials_is_refused(copied, drawn):
    with pytest.raises(UserError, match="holds a search with another trials;"):
        searched_in(copied, drawn, trials=TRIALS + 1)


def test_other_images_are_refused(copied, drawn):
    with pytest.raises(UserError, match="holds a search with another data_sha256;"):
        search(BASE, drawn / "test", "none", copied, TRIALS)


def test_other_backbone_weights_are_refused(copied, drawn, tmp_path):
    weights = tmp_path / "other.weights.h5"
    tiny("none").save_weights(weights)
    with pytest.raises(UserError, match="holds a search with another backbone_weights;"):
        search(BASE, drawn / "train", str(weights), copied, TRIALS, test=drawn / "test")


def test_test_images_given_only_to_a_finished_search_are_one_clear_error_or_a_column(drawn, tmp_path):
    search(BASE, drawn / "train", "none", tmp_path / "search", 1)
    try:
        rows = search(BASE, drawn / "train", "none", tmp_path / "search", 1, test=drawn / "test")
    except UserError as error:
        assert "test" in str(error)
    else:
        assert "test_accuracy" in rows[0]


def test_a_folder_of_something_else_is_refused_and_left_alone(drawn, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    with pytest.raises(UserError, match="letters exists and holds no search; give another --out"):
        searched_in(tmp_path / "letters", drawn)
    assert sorted(path.name for path in (tmp_path / "letters").iterdir()) == [".lock", "mine.txt"]


@pytest.mark.parametrize("text", ["", '{"ongoing_trials": {', "{}", "[]", "null", "\x00\x01"])
def test_a_damaged_record_of_the_tuner_is_one_clear_error(copied, drawn, text):
    assert json.loads((copied / "trials" / "oracle.json").read_text())["end_order"]  # the file that counts
    (copied / "trials" / "oracle.json").write_text(text)
    with pytest.raises(UserError, match="the search in .* is damaged .*remove the folder and start again"):
        searched_in(copied, drawn)


def test_a_damaged_trial_is_one_clear_error(copied, drawn):
    sorted(copied.glob("trials/trial_*/trial.json"))[0].write_text('{"trial_id": ')
    with pytest.raises(UserError, match="the search in .* is damaged"):
        searched_in(copied, drawn)


def test_a_damaged_record_of_the_search_is_one_clear_error(copied, drawn):
    (copied / "search.json").write_text('{"recipe": ')
    with pytest.raises(UserError, match=r"search"):
        searched_in(copied, drawn)


@pytest.mark.parametrize("base", [online, replace(BASE, phases=((1, 96),)), replace(BASE, frozen_epochs=0, head="quasi_svm")])
def test_a_recipe_that_is_not_a_frozen_backbone_with_a_trained_head_is_refused(base, drawn, tmp_path):
    with pytest.raises(UserError, match="the recipe needs frozen_epochs, and 0 epochs in its phases"):
        searched_in(tmp_path / "search", drawn, base=base)
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize("trials", [2, 4])  # KerasTuner itself gives up after three failures
def test_a_recipe_of_which_every_trial_fails_is_one_clear_error(drawn, tmp_path, trials):
    with pytest.raises(UserError, match="Species9|trial.json"):
        searched_in(tmp_path / "search", drawn, base=replace(BASE, repeats={"Species9": 2}), trials=trials)
    assert not (tmp_path / "search" / "trials.csv").exists()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextlib.contextmanager
def several(command, folder, names, port, ready=lambda name: None):
    """Chief and workers of one search, as processes: name → (process, file of its output)."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in names:
            variables = {"KERASTUNER_TUNER_ID": name, "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
            output = folder / f"{name}.txt"
            found[name] = stack.enter_context(process(command, output, **variables)), output
            ready(found)
        yield found


def all_end(found, seconds=240):
    """Waits for all and returns their outputs; fails with the outputs where one fails or hangs."""
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


COMMAND = [sys.executable, "-m", "training", "tune", "tuned", "--set", "frozen_epochs=2", "--set", "head_views=1"]


@pytest.mark.parametrize("command", [driver(), pytest.param(COMMAND, marks=pytest.mark.slow)], ids=["tiny", "InceptionV3"])
def test_a_chief_and_two_workers_share_one_search(command, drawn, tmp_path):
    trials, out = 8, tmp_path / "search"

    def chief_first(found):
        wait_until((out / "search.json").exists, *found["chief"])

    names = ["chief", "worker0", "worker1"]
    with several([*command, *given(drawn, out, trials)], tmp_path, names, free_port(), chief_first) as found:
        texts = all_end(found)
    rows = lines_of(out)
    assert sorted(int(row["trial"]) for row in rows) == list(range(1, trials + 1))
    assert list(rows[0]) == COLUMNS
    assert [float(row["val_accuracy"]) for row in rows] == sorted((float(row["val_accuracy"]) for row in rows), reverse=True)
    ran = trials_in(texts["worker0"]) + trials_in(texts["worker1"])
    assert sorted(ran) == [f"trial {number}" for number in range(1, trials + 1)]
    assert trials_in(texts["chief"]) == []
    assert f"done: {out / 'trials.csv'}; next: python -m training run tuned --set" in texts["chief"]
    assert not any("done:" in texts[name] for name in ("worker0", "worker1"))


@pytest.mark.slow
def test_a_worker_that_comes_before_the_chief_waits_for_it(drawn, tmp_path, searched):
    out = tmp_path / "search"

    def worker_first(found):
        if "chief" not in found:
            wait_until(out.exists, *found["worker0"])
            time.sleep(3)  # it has begun, and there is nobody to tell it what to do

    with several([*driver(), *given(drawn, out)], tmp_path, ["worker0", "chief"], free_port(), worker_first) as found:
        texts = all_end(found)
    assert len(trials_in(texts["worker0"])) == TRIALS
    for row, alone in zip(lines_of(out), searched[1], strict=True):  # the same trials, but for the single precision of their messages
        assert {key: row[key] for key in ("trial", "size", "layers", "width", "activation")} == {
            key: str(alone[key]) for key in ("trial", "size", "layers", "width", "activation")
        }
        for key in ("val_accuracy", "test_accuracy", "dropout", "dense_dropout", "learning_rate"):
            assert float(row[key]) == pytest.approx(alone[key], rel=1e-4, abs=1e-6)


def test_only_the_role_of_a_worker_without_a_chief_is_one_clear_error(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    with pytest.raises(UserError, match="KERASTUNER_ORACLE_IP"):
        searched_in(tmp_path / "search", drawn, trials=1)


def test_an_oracle_without_a_port_is_one_clear_error(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(UserError, match="KERASTUNER_ORACLE_PORT"):
        searched_in(tmp_path / "search", drawn, trials=1)


def test_the_folder_of_a_search_has_what_the_documentation_says(searched):
    assert {path.name for path in Path(searched[0]).iterdir()} == {".lock", "search.json", "trials", "trials.csv"}
