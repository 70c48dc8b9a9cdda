"""What a command that trains reads: labelled images, and validation and test images of the same classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.folders import ClassFiles, printable
from common.images import Images, load_images
from common.labels import LabelledFolder
from training.data.groups import warnings_of_groups, with_groups


@dataclass(frozen=True)
class Inputs:
    """What a run reads.

    data: folder of class folders, or with `labels` of image files.
    backbone_weights: see `training.model.backbones`.
    test: another folder of images that is reported on and used for nothing else, or None.
    reuse: folders of finished runs, or for `crossval` of cross-validations, whose fine-tuning is taken over if it made
        the same choices.
    require_reuse: whether it is an error if none of them did.
    groups: CSV file of images that a split keeps together, see `training.data.groups`, or None.
    size: (height, width) in pixels at which the images are read; None takes that of `load_images`.
    labels: CSV file with the labels of the images in `data`, see `common.labels`, or None.
    label_columns: the columns of files and of labels, also of the next two files; None: they are recognized.
    validation_labels, test_labels: the same of the images in `validation` and `test`; None: they are class folders.
    validation: folder of images that are the validation part, or None: it is split from `data`.
    teacher: folder of a finished cross-validation, whose predictions are soft targets, or None.
    max_images: maximum number of images of `data` that are read, evenly spaced in each class; None reads all.
    """

    data: Path
    backbone_weights: str = "imagenet"
    test: Path | None = None
    reuse: tuple = ()
    require_reuse: bool = False
    groups: Path | None = None
    size: tuple[int, int] | None = None
    labels: Path | None = None
    label_columns: tuple[str, str] | None = None
    validation: Path | None = None
    validation_labels: Path | None = None
    test_labels: Path | None = None
    teacher: Path | None = None
    max_images: int | None = None

    def other_folders(self) -> dict[str, LabelledFolder]:
        """The validation and the test images that are given, by the name of their option.

        Raises:
            UserError: a file of labels without its folder.
        """
        given = {
            "--validation": (self.validation, self.validation_labels),
            "--test": (self.test, self.test_labels),
        }
        for option, (folder, labels) in given.items():
            if labels and not folder:
                raise UserError(f"{option}-labels has the labels of the images in {option}; give {option} DIR as well")
        return {
            option: LabelledFolder(folder, labels, self.label_columns if labels else None)
            for option, (folder, labels) in given.items()
            if folder
        }


Loaded = tuple[Images, Images | None]  # the labelled images, and the test images


def load_inputs(inputs: Inputs) -> Loaded:
    """Loads the images that a run reads, and prints what is unusual about them.

    Args:
        inputs: `Inputs`.

    Returns:
        (labelled images, test images or None), all of one size and with the same class names. Images of
        `inputs.validation` come after those of `inputs.data` and are `held_out`.

    Raises:
        UserError: see `load_images`, `list_classes`, `list_labelled` and `with_groups`; validation or test images of
            other classes; options that exclude or need each other.
    """
    others = inputs.other_folders()
    if inputs.validation and inputs.groups:
        raise UserError("--groups is for splitting --data, which --validation leaves whole; give only one of them")
    images = load_labelled(inputs)
    for note in images.notes:
        print(note)
    if inputs.groups:
        images = with_groups(images, Path(inputs.groups), Path(inputs.data))
        for warning in warnings_of_groups(images):
            print(warning)
    if "--validation" in others:
        validation = _load_other("--validation", others, images)
        print(f"{len(validation)} --validation images are held out, all of --data is trained on")
        images = images.with_validation(validation)
    return images, _load_other("--test", others, images) if "--test" in others else None


def require_outside(out: Path, inputs: Inputs) -> None:
    """Raises a UserError if an output folder is within class folders, where it would become a class."""
    folders = {"--data": LabelledFolder(inputs.data, inputs.labels), **inputs.other_folders()}
    for option, images in folders.items():
        if not images.table and Path(out).resolve().is_relative_to(Path(images.folder).resolve()):
            raise UserError(
                f"the folder of a run must be outside of {option}, where it would become a class; got {out}, give "
                "another --out or --runs"
            )


def load_labelled(inputs: Inputs) -> Images:
    """Loads `inputs.data`, by class folders or by `inputs.labels`. The notes are not printed."""
    return load_images(list_inputs(inputs), inputs.size)


def list_inputs(inputs: Inputs) -> ClassFiles:
    """Lists the files of `inputs.data`, by class folders or by `inputs.labels`."""
    others = inputs.validation_labels or inputs.test_labels  # --label-columns may be about these alone
    columns = inputs.label_columns if inputs.labels or not others else None
    listed = LabelledFolder(inputs.data, inputs.labels, columns).files()
    return listed if inputs.max_images is None else listed.limited(inputs.max_images)


def _load_other(option: str, others: dict[str, LabelledFolder], images: Images) -> Images:
    """The validation or test images, at the size and with the class names of the labelled images."""
    try:
        listed = others[option].files()
    except UserError as error:
        raise UserError(f"{option}: {error}".replace("(--labels)", f"({option}-labels)")) from error
    loaded = load_images(listed, images.images.shape[1:3])
    for note in loaded.notes:
        print(note)
    other = loaded.with_classes(images.names, option, "--data")
    missing = [name for label, name in enumerate(other.names) if label not in other.labels]
    if missing:
        print(f"warning: {option} has no images of {', '.join(missing)}")
    for warning in _warnings_of_copies(option, other, images):
        print(warning)
    return other


def _warnings_of_copies(option: str, other: Images, images: Images) -> Iterator[str]:
    """Warnings of the validation or test images that are also among the labelled images, or nearly."""
    whose, total = "--data or --validation" if any(images.held_out) else "--data", f"{len(other)} {option} images"
    contradictions = other.contradictions(images)
    if contradictions:
        example = " and ".join(map(printable, contradictions[0]))
        count = f"{len(contradictions)} of the {total}"
        yield f"warning: {count} are of another class in {whose}, for example {example}; correct their labels"
    repeated = other.count_in(images) - len(contradictions)
    if repeated:
        yield f"warning: {repeated} of the {total} are also in {whose}, so its accuracy is too high"
    near = other.near_copies_in(images)
    if near:
        yield (
            f"warning: {len(near)} of the {total} look nearly the same as one of their class in {whose}, for example "
            f"{' and '.join(map(printable, near[0]))}; if they show the same thing, its accuracy may be too high"
        )
