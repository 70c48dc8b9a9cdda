"""What a run reads: the size of the images, their labels, and validation and test images of the same classes."""

import argparse
import json
import re
import shutil
from dataclasses import replace
from email.message import Message
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
from helpers import change
from PIL import Image

from common.cli import image_size
from common.errors import UserError
from common.files import digest, write_arrays
from common.images import load_folder
from competition.package.trained_on import count_trained_on
from training.__main__ import main
from training.commands import train as train_commands
from training.config.override import change as set_fields
from training.data.balance import oversample, undersample
from training.evaluate.mistakes import draw_mistakes
from training.export import export_run
from training.inputs import Inputs, load_inputs
from training.model import backbones
from training.predict import predict_proba
from training.run import train
from training.run_folder import METRICS, SAMPLES, VAL, read_record
from training.trained import load_run

pytestmark = pytest.mark.integration


@pytest.fixture
def quick(small):
    """A recipe that trains one epoch of small images and no quasi-SVM."""
    return change(small, kind="softmax", resolution_schedule=((1, 48),))


@pytest.fixture
def test_folder(leaf_folder, tmp_path):
    """The same classes with other images."""
    shutil.copytree(leaf_folder, tmp_path / "test")
    for path in (tmp_path / "test").glob("*/*.jpg"):
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    return tmp_path / "test"


def test_other_test_images_of_the_same_classes_need_no_word(leaf_folder, test_folder, capsys):
    images, test = load_inputs(Inputs(leaf_folder, "none", test_folder))
    assert test.count_in(images) == 0
    assert np.array_equal(test.labels, images.labels)
    assert capsys.readouterr().out == ""


def test_missing_test_class_is_warned_of_and_the_others_keep_their_labels(leaf_folder, test_folder, capsys):
    shutil.rmtree(test_folder / "Species1")
    images, test = load_inputs(Inputs(leaf_folder, "none", test_folder))
    assert test.names == images.names
    assert test.labels.tolist() == [1] * 8 + [2] * 8
    assert "warning: --test has no images of Species1" in capsys.readouterr().out


def test_renamed_test_class_is_refused_by_name(leaf_folder, test_folder):
    (test_folder / "Species1").rename(test_folder / "Species9")
    with pytest.raises(UserError, match="--data, Species1, Species2, Species3; got also Species9"):
        load_inputs(Inputs(leaf_folder, "none", test_folder))


def test_test_images_in_training_are_warned_of_and_stated_in_the_metrics(
    leaf_folder, test_folder, quick, tmp_path, capsys
):
    for number in range(3):
        source = leaf_folder / "Species2" / f"{number:05d}.jpg"
        Image.open(source).save(test_folder / "Species2" / f"copy{number}.png")  # other bytes, the same pixels
    recipe = change(quick, validation_split=0.5)
    train(recipe, "leaky", Inputs(leaf_folder, "none", test_folder), tmp_path / "leaky")
    assert "warning: 3 of the 27 --test images are also in --data" in capsys.readouterr().out
    assert json.loads((tmp_path / "leaky" / METRICS).read_text("utf-8"))["test_images_in_training"] == len(
        set(range(8, 11)) - set(np.load(tmp_path / "leaky" / VAL)["rows"].tolist())  # the rows of the copied images
    )


def test_the_export_names_the_images_that_were_trained_on_and_no_others(leaf_folder, test_folder, quick, tmp_path):
    recipe = change(quick, validation_split=0.5)
    train(recipe, "split", Inputs(leaf_folder, "none"), tmp_path / "split")
    export_run(tmp_path / "split", tmp_path / "model")
    images = load_folder(leaf_folder)
    with np.load(tmp_path / "split" / VAL) as file:
        held_out = images.rows(file["rows"])
    assert 0 < len(held_out) < len(images)
    assert count_trained_on(tmp_path / "model", images.file_hashes) == len(images) - len(held_out)
    assert count_trained_on(tmp_path / "model", held_out.file_hashes) == 0
    assert count_trained_on(tmp_path / "model", load_folder(test_folder).file_hashes) == 0


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"data.resampling": undersample}, 9),
        ({"data.resampling": oversample}, 19),
        ({"augmentation.precomputed": ((("Species1",), 2),)}, 19),
    ],
    ids=["undersample", "oversample", "precomputed"],
)
def test_images_that_resampling_leaves_out_are_not_named(leaf_folder, quick, tmp_path, changes, count):
    """Of 3, 8 and 8 images, undersampling trains on 3 of each class; copies and changed images name their own file."""
    for path in sorted((leaf_folder / "Species1").iterdir())[3:]:
        path.unlink()
    recipe = set_fields(quick, {"data.validation_split": 0.0, **changes})
    train(recipe, "resampled", Inputs(leaf_folder, "none"), tmp_path / "resampled")
    export_run(tmp_path / "resampled", tmp_path / "model")
    assert count_trained_on(tmp_path / "model", load_folder(leaf_folder).file_hashes) == count


def test_given_validation_images_are_not_named_as_trained_on(leaf_folder, test_folder, quick, tmp_path):
    train(quick, "given", Inputs(leaf_folder, "none", validation=test_folder), tmp_path / "given")
    export_run(tmp_path / "given", tmp_path / "model")
    assert count_trained_on(tmp_path / "model", load_folder(leaf_folder).file_hashes) == 24
    assert count_trained_on(tmp_path / "model", load_folder(test_folder).file_hashes) == 0


def test_a_run_of_an_earlier_version_names_no_images(leaf_folder, quick, tmp_path):
    """Its samples.npz has photographs only."""
    train(quick, "old", Inputs(leaf_folder, "none"), tmp_path / "old")
    with np.load(tmp_path / "old" / SAMPLES) as file:
        images = file["images"]
    write_arrays(tmp_path / "old" / SAMPLES, images=images)
    export_run(tmp_path / "old", tmp_path / "model")
    assert count_trained_on(tmp_path / "model", load_folder(leaf_folder).file_hashes) == 0


def test_test_images_that_are_validation_images_are_not_counted_as_trained_on(
    leaf_folder, test_folder, quick, tmp_path
):
    inputs = Inputs(leaf_folder, "none", test_folder, validation=test_folder)
    assert train(quick, "validated", inputs, tmp_path / "validated")["test_images_in_training"] == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"head.class_bias": {"Species9": 0.5}}, "head.class_bias must name classes of the data"),
        ({"head.feature_layers": ("mixed99",)}, "head.feature_layers must be layers of the backbone"),
    ],
)
def test_wrong_names_are_refused_before_the_training(leaf_folder, small, tmp_path, monkeypatch, changes, named):
    monkeypatch.setattr("training.fit.finetune._one_epoch", lambda *rest: pytest.fail("trained"))
    recipe = set_fields(small, changes)
    with pytest.raises(UserError, match=named):
        train(recipe, "wrong", Inputs(leaf_folder, "none", size=(24, 28)), tmp_path / "wrong")


def test_run_without_test_images_states_nothing_of_them(leaf_folder, quick, tmp_path):
    result = train(quick, "plain", Inputs(leaf_folder, "none", size=(24, 28)), tmp_path / "plain")
    assert "test_images_in_training" not in result
    assert read_record(tmp_path / "plain").image_shape == (24, 28)


# --- labels in a CSV file


@pytest.fixture
def flat_folder(leaf_folder, tmp_path):
    """The same images in one folder, with `train.csv` beside it."""
    folder = tmp_path / "flat"
    folder.mkdir()
    rows = ["image_id;species"]
    for path in sorted(leaf_folder.glob("*/*.jpg")):
        shutil.copy(path, folder / f"{path.parent.name}_{path.name}")
        rows.append(f"{path.parent.name}_{path.stem};{path.parent.name}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize(
    "command", [("run", "inception_svm"), ("crossval", "released"), ("auto", "--minutes", "1"), ("tune", "tuned")]
)
def test_an_output_within_the_images_is_refused(leaf_folder, command, capsys):
    """It would be a class of the next run."""
    before = sorted(leaf_folder.iterdir())
    assert main([*command, "--data", str(leaf_folder), "--out", str(leaf_folder / "out")]) == 2
    assert "error: the folder of a run must be outside of --data, where" in capsys.readouterr().err
    assert sorted(leaf_folder.iterdir()) == before


def test_images_with_a_table_are_those_of_class_folders(leaf_folder, flat_folder, tmp_path, capsys):
    images, test = load_inputs(Inputs(flat_folder, test=leaf_folder, labels=tmp_path / "train.csv"))
    expected, _ = load_inputs(Inputs(leaf_folder))
    assert images.names == test.names == expected.names
    assert np.array_equal(images.images, expected.images) and np.array_equal(images.labels, expected.labels)
    out = capsys.readouterr().out
    assert "train.csv: column image_id has the files, column species the labels; 3 classes" in out
    assert "warning: 24 of the 24 --test images are also in --data" in out


@pytest.mark.slow
def test_every_command_of_a_run_takes_a_table(flat_folder, quick, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_commands, "load_recipe", lambda name: quick)
    data = ["--data", str(flat_folder), "--labels", str(tmp_path / "train.csv")]
    named = [*data, "--label-columns", "image_id,species"]
    out, folds = str(tmp_path / "run"), str(tmp_path / "folds")
    assert main(["run", "small", *data, "--out", out, "--backbone-weights", "none"]) == 0
    assert main(["crossval", "small", *data, "--folds", "2", "--out", folds, "--backbone-weights", "none"]) == 0
    shutil.rmtree(tmp_path / "leaves")
    for folder in (out, folds):
        assert main(["mistakes", folder, *named, "--out", str(tmp_path / "mistakes.png")]) in (0, 2)
        done = capsys.readouterr()
        assert re.search("flat/Species._0.*: true|no mistake among", done.out + done.err)
    assert main(["split", *named, "--out", str(tmp_path / "split")]) == 0
    assert {path.name for path in (tmp_path / "split" / "train").iterdir()} == {"Species1", "Species2", "Species3"}


def test_groups_name_files_of_a_flat_folder(flat_folder, tmp_path):
    names = sorted(path.name for path in flat_folder.iterdir())
    (tmp_path / "groups.csv").write_text("path,group\n" + "".join(f"{name},{name[-5]}\n" for name in names))
    images, _ = load_inputs(Inputs(flat_folder, labels=tmp_path / "train.csv", groups=tmp_path / "groups.csv"))
    assert images.group_names == tuple("01234567" * 3)


@pytest.mark.parametrize("columns", ["image_id", "a,b,c", "a,", ","])
def test_other_than_two_columns_are_wrong_usage(flat_folder, tmp_path, columns, capsys):
    with pytest.raises(SystemExit) as error:
        main(["split", "--data", "x", "--out", "y", "--labels", "z", "--label-columns", columns])
    assert error.value.code == 2
    assert "names of two columns" in capsys.readouterr().err


def test_columns_without_a_table_are_refused(leaf_folder):
    with pytest.raises(UserError, match="give --labels FILE"):
        load_inputs(Inputs(leaf_folder, label_columns=("a", "b")))
    assert main(["split", "--data", str(leaf_folder), "--out", str(leaf_folder / "x"), "--label-columns", "a,b"]) == 2


# --- a validation folder


@pytest.fixture
def validation_folder(test_folder):
    """A third of the images of `test_folder`, as class folders."""
    for path in test_folder.glob("*/*.jpg"):
        if int(path.stem) % 3:
            path.unlink()
    return test_folder


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_a_validation_folder_is_held_out_and_all_other_images_are_trained_on(
    leaf_folder, validation_folder, quick, tmp_path, share, capsys
):
    inputs = Inputs(leaf_folder, "none", validation=validation_folder)
    result = train(change(quick, validation_split=share), "given", inputs, tmp_path / "given")
    assert "9 --validation images are held out" in capsys.readouterr().out
    assert (result["training_images"], result["images"]) == (24, 9)
    images, _ = load_inputs(inputs)
    with np.load(tmp_path / "given" / VAL) as file:
        rows, labels, probabilities = file["rows"], file["labels"], file["probabilities"]
    assert [images.paths[row] for row in rows] == [str(path) for path in sorted(validation_folder.glob("*/*.jpg"))]
    assert np.array_equal(images.labels[rows], labels)
    trained = load_run(tmp_path / "given")
    expected = predict_proba(trained.model, images.images[rows], trained.prediction)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    # Other held-out images are other parts, even if all images are the same.
    assert read_record(tmp_path / "given").groups_sha256 == digest([False] * 24 + [True] * 9)


def test_mistakes_on_a_validation_folder_are_named(leaf_folder, validation_folder, quick, tmp_path):
    folder, inputs = tmp_path / "given", Inputs(leaf_folder, "none", validation=validation_folder)
    train(quick, "given", inputs, folder)
    with np.load(folder / VAL) as file:
        arrays = dict(file)
    arrays["probabilities"] = np.roll(np.eye(3)[arrays["labels"]], 1, axis=1)  # all are wrong
    np.savez(folder / VAL, **arrays)
    lines = draw_mistakes(folder, inputs, tmp_path / "mistakes.png")
    assert len(lines) == 9 and lines[0].startswith("Species1/00000.jpg: true Species1 0%, predicted Species2 100%")
    with pytest.raises(UserError, match="with the same --labels and --validation"):
        draw_mistakes(folder, Inputs(leaf_folder), tmp_path / "mistakes.png")


def test_a_run_with_a_validation_folder_is_reused_by_another_only(
    leaf_folder, validation_folder, quick, tmp_path, capsys
):
    inputs = Inputs(leaf_folder, "none", validation=validation_folder)
    train(quick, "one", inputs, tmp_path / "one")
    svm = change(quick, kind="quasi_svm")
    reusing = replace(inputs, reuse=(tmp_path / "one",), require_reuse=True)
    assert train(svm, "svm", reusing, tmp_path / "svm")["images"] == 9
    assert "one: reusing" in capsys.readouterr().out
    with pytest.raises(UserError, match="--reuse: no run"):
        train(svm, "split", replace(reusing, validation=None), tmp_path / "split")


def test_copies_and_missing_classes_of_a_validation_folder_are_warned_of(leaf_folder, validation_folder, capsys):
    shutil.rmtree(validation_folder / "Species1")
    for number in range(2):
        source = leaf_folder / "Species2" / f"{number:05d}.jpg"
        Image.open(source).save(validation_folder / "Species2" / f"copy{number}.png")
    images, _ = load_inputs(Inputs(leaf_folder, test=leaf_folder, validation=validation_folder))
    out = capsys.readouterr().out
    assert "warning: --validation has no images of Species1" in out
    assert "warning: 2 of the 8 --validation images are also in --data, so its accuracy is too high" in out
    assert "warning: 24 of the 24 --test images are also in --data or --validation" in out
    assert sum(images.held_out) == 8


@pytest.mark.parametrize("option", ["validation", "test"])
def test_nearly_the_same_images_in_another_folder_are_warned_of(leaf_folder, validation_folder, option, capsys):
    original, other = leaf_folder / "Species2" / "00003.jpg", validation_folder / "Species2" / "larger.png"
    with Image.open(original) as image:
        image.resize((200, 200)).save(other)
        image.resize((64, 64)).save(validation_folder / "Species3" / "of_another_class.png")
    images, _ = load_inputs(Inputs(leaf_folder, **{option: validation_folder}))
    assert (
        f"warning: 1 of the 11 --{option} images look nearly the same as one of their class in --data, for example "
        f"{other} and {original}; if they show the same thing, its accuracy may be too high\n"
    ) in capsys.readouterr().out
    assert images.thumbnails.shape == (len(images), 8, 9)
    assert np.array_equal(images.rows([3, 1]).thumbnails, images.thumbnails[[3, 1]])


def test_other_classes_in_a_validation_folder_are_refused(leaf_folder, validation_folder):
    (validation_folder / "Species1").rename(validation_folder / "Species9")
    with pytest.raises(UserError, match="--validation must have the classes of --data.*Species9"):
        load_inputs(Inputs(leaf_folder, validation=validation_folder))


def test_a_validation_folder_excludes_groups_folds_and_cross_validation(leaf_folder, quick, tmp_path, capsys):
    given = Inputs(leaf_folder, "none", validation=leaf_folder)
    with pytest.raises(UserError, match="--groups .*--validation"):
        load_inputs(replace(given, groups=tmp_path / "groups.csv"))
    with pytest.raises(UserError, match="data.folds .*--validation"):
        train(change(quick, folds=2), "small", given, tmp_path / "run")
    arguments = ["crossval", "tuned", "--data", str(leaf_folder), "--validation", str(leaf_folder)]
    assert main([*arguments, "--out", str(tmp_path / "folds")]) == 2
    assert re.search("crossval holds out every image.*--validation", capsys.readouterr().err)


# --- validation and test images whose labels are in CSV files


@pytest.fixture
def tables(leaf_folder, tmp_path):
    """One flat folder, `all`, of the leaves, and three tables with two, one and the rest of each class."""
    (tmp_path / "all").mkdir()
    parts = {"val.csv": range(2), "test.csv": range(2, 3), "train.csv": range(3, 8)}
    rows = {name: ["image,species"] for name in parts}
    for path in sorted(leaf_folder.glob("*/*.jpg")):
        name = f"{path.parent.name}_{path.name}"
        shutil.copy(path, tmp_path / "all" / name)
        (table,) = [table for table, numbers in parts.items() if int(path.stem) in numbers]
        rows[table].append(f"{name},{path.parent.name}")
    for name, lines in rows.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


def three_tables(folder, **more):
    files = {"labels": "train.csv", "validation_labels": "val.csv", "test_labels": "test.csv"}
    given = {name: folder / file for name, file in files.items()}
    return Inputs(folder / "all", "none", folder / "all", validation=folder / "all", **{**given, **more})


def test_train_validation_and_test_images_of_one_folder_by_three_tables(tables, quick, capsys):
    images, test = load_inputs(three_tables(tables))
    assert (len(images), sum(images.held_out), len(test)) == (21, 6, 3)
    kept = [int(path[-9:-4]) for path, held_out in zip(images.paths, images.held_out, strict=True) if held_out]
    assert kept == [0, 1] * 3 and images.labels[np.array(images.held_out)].tolist() == [0, 0, 1, 1, 2, 2]
    assert [int(path[-9:-4]) for path in test.paths] == [2, 2, 2] and test.labels.tolist() == [0, 1, 2]
    printed = capsys.readouterr().out
    assert "are also in" not in printed and "6 --validation images are held out" in printed
    result = train(quick, "given", three_tables(tables), tables / "all" / "run")  # it would not become a class
    assert (result["training_images"], result["images"], result["test"]["images"]) == (15, 6, 3)


def test_the_label_columns_are_those_of_all_tables(tables):
    columns = three_tables(tables, label_columns=("image", "species"))
    images, test = load_inputs(columns)
    assert (len(images), len(test)) == (21, 3)
    (tables / "test.csv").write_text("file,species\nSpecies1_00002.jpg,Species1\n", "utf-8")
    with pytest.raises(UserError, match="--label-columns must be two of.*file"):
        load_inputs(columns)


def test_an_image_in_two_tables_is_warned_of(tables, capsys):
    with open(tables / "val.csv", "a") as file:
        file.write("Species2_00005.jpg,Species2\n")
    load_inputs(three_tables(tables))
    assert "warning: 1 of the 7 --validation images are also in --data" in capsys.readouterr().out


def test_an_image_with_two_labels_in_two_tables_is_warned_of(tables, capsys):
    with open(tables / "val.csv", "a") as file:
        file.write("Species2_00005.jpg,Species3\nSpecies2_00006.jpg,Species2\n")
    load_inputs(three_tables(tables))
    printed = capsys.readouterr().out
    assert "warning: 1 of the 8 --validation images are of another class in --data, for example" in printed
    assert "warning: 1 of the 8 --validation images are also in --data" in printed


def test_an_error_of_another_table_names_it_and_its_option(tables):
    given, table = three_tables(tables), tables / "val.csv"
    with pytest.raises(UserError, match="^--test: .* must contain at least two class folders.*\\(--test-labels\\)"):
        load_inputs(replace(given, test_labels=None))
    with pytest.raises(UserError, match="^--validation: the file of labels must be a CSV file, got .*no.csv"):
        load_inputs(replace(given, validation_labels=tables / "no.csv"))
    table.write_text(table.read_text("utf-8").replace(",Species3", ",SPECIES3"), "utf-8")
    with pytest.raises(UserError, match="got also SPECIES3 .in other upper and lower case: SPECIES3 for Species3"):
        load_inputs(given)


def test_the_label_columns_may_be_those_of_the_validation_table_alone(leaf_folder, tables):
    inputs = Inputs(leaf_folder, validation=tables / "all", validation_labels=tables / "val.csv")
    images, _ = load_inputs(replace(inputs, label_columns=("image", "species")))
    assert (len(images), sum(images.held_out)) == (30, 6)
    with pytest.raises(UserError, match="--label-columns names columns of a CSV file; give --labels FILE as well"):
        load_inputs(replace(inputs, validation_labels=None, label_columns=("image", "species")))


@pytest.mark.parametrize(
    ("command", "out", "words"),
    [
        (("mistakes", "run"), "train.csv", "--out must be another file than --labels"),
        (("label-errors",), "train.html", "the CSV file beside --out must be another file than --labels"),
    ],
)
def test_a_table_of_labels_is_not_overwritten(tables, command, out, words, capsys):
    before = (tables / "train.csv").read_bytes()
    images = ["--data", str(tables / "all"), "--labels", str(tables / "train.csv")]
    assert main([*command, *images, "--out", str(tables / out)]) == 2
    assert words in capsys.readouterr().err
    assert (tables / "train.csv").read_bytes() == before


@pytest.mark.parametrize("option", ["validation", "test"])
def test_labels_without_their_folder_are_refused(tables, option):
    inputs = replace(three_tables(tables), **{option: None})
    with pytest.raises(UserError, match=f"^--{option}-labels has the labels .* give --{option} DIR as well"):
        load_inputs(inputs)


def test_the_options_of_the_tables_are_read(tables, capsys):
    run = ["run", "tuned", "--out", str(tables / "run"), "--data", str(tables / "all")]
    run += ["--labels", str(tables / "train.csv"), "--validation", str(tables / "all")]
    assert main([*run, "--validation-labels", str(tables / "no.csv"), "--test-labels", str(tables / "test.csv")]) == 2
    assert "--test-labels has the labels" in capsys.readouterr().err
    assert main([*run, "--validation-labels", str(tables / "no.csv")]) == 2
    assert "no.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*run[:-1], ""])
    assert "error: validation must not be empty" in capsys.readouterr().err


# --- weights that cannot be downloaded


@pytest.mark.parametrize(
    ("backbone", "file", "error", "reason"),
    [
        (
            "inception_v3",
            "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            URLError("no network"),
            "no network",
        ),
        (
            "vgg19",
            "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
            HTTPError("", 404, "gone", Message(), None),
            "404",
        ),
    ],
)
def test_weights_that_cannot_be_downloaded_are_named_with_their_address(
    backbone, file, error, reason, tmp_path, monkeypatch
):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", fail)
    with pytest.raises(UserError) as refused:
        getattr(backbones, backbone)("imagenet")
    text = str(refused.value)
    assert "\n" not in text and text.count("https://") == 1
    assert re.search(rf"cannot be downloaded .{reason}.*download https://.*/{file} .*--backbone-weights {file}$", text)


# --- few images and many classes


def draw(folder, classes, images):
    """Class folders of noise, 16×16 pixels."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"Class{number}").mkdir(parents=True)
        for image in range(images):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"Class{number}" / f"{image}.png")
    return folder


@pytest.mark.parametrize(
    ("classes", "images", "share", "words"),
    [
        (1, 4, 0.25, "at least two class folders, got only Class0; add one folder"),
        (3, 1, 0.25, "two different images of at least two classes, got 0 .*validation_split=0"),
        (20, 4, 0.2, "each of the 20 classes, 20% of 80 .*validation_split=0.25"),
        (20, 4, 0.25, None),
        (2, 2, 0.5, None),
        (3, 1, 0.0, None),
        pytest.param(200, 2, 0.5, None, marks=pytest.mark.slow),
    ],
)
def test_few_images_and_many_classes_are_trained_on_or_refused(quick, tmp_path, classes, images, share, words):
    data = draw(tmp_path / "data", classes, images)
    recipe = change(quick, validation_split=share, resolution_schedule=((1, 32),), batch_size=64)
    out = tmp_path / "run"
    if words:
        with pytest.raises(UserError, match=words):
            train(recipe, "few", Inputs(data, "none"), out)
        return
    result = train(recipe, "few", Inputs(data, "none"), out)
    assert result["training_images"] + result["images"] == classes * images
    assert len(load_run(out).names) == classes


@pytest.mark.parametrize(("text", "size"), [("128", (128, 128)), ("96x128", (96, 128)), ("96×128", (96, 128))])
def test_size_is_one_side_or_height_and_width(text, size):
    assert image_size(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "96x", "x96", "96x96x3", "1.5", "", "5000", "10²", "①", "a"])
def test_other_sizes_are_refused(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="N or HEIGHTxWIDTH"):
        image_size(text)
    with pytest.raises(SystemExit) as error:
        main(["run", "released", "--data", "nowhere", f"--size={text}"])
    assert error.value.code == 2
    assert "--size" in capsys.readouterr().err
