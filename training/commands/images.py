"""The commands for folders of images: split, deepweeds and predict."""

import argparse
from pathlib import Path

from common.cli import whole_number
from common.errors import UserError
from training.commands.options import add_command, add_data, inputs_of, seed


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds these commands to the parser."""
    for add in (_add_split, _add_deepweeds, _add_predict):
        add(commands)


def _add_split(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "split", "copy images into class folders for training and for validation")
    add_data(command)
    command.add_argument("--out", required=True, help="new folder, gets train/ and validation/")
    command.add_argument(
        "--validation-split",
        "--validation",  # its earlier name; other commands take a folder by it
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the images that goes to validation/ (default: %(default)s)",
    )
    command.add_argument("--seed", type=seed, default=0, help="seed of the random split (default: %(default)s)")
    command.set_defaults(command=_split)


def _split(options: argparse.Namespace) -> None:
    from training.data.copy_split import copy_split

    print("\n".join(copy_split(inputs_of(options), Path(options.out), options.validation_split, options.seed)))


def _add_deepweeds(commands: argparse._SubParsersAction) -> None:
    command = add_command(commands, "deepweeds", "rebuild the competition's images from the public DeepWeeds")
    command.add_argument("--images", help="DeepWeeds' folder of 17,509 images")
    command.add_argument("--labels", help="DeepWeeds' labels.csv")
    command.add_argument("--download", metavar="FOLDER", help="download both into this folder (about 470 MB)")
    command.add_argument("--out", required=True, help="new folder, gets train/, phase1/ and phase2/")
    command.set_defaults(command=_deepweeds)


def _deepweeds(options: argparse.Namespace) -> None:
    from training.data.deepweeds import download, rebuild

    if options.download and (options.images or options.labels):
        raise UserError("--download gets the images and labels itself; leave out --images and --labels, or --download")
    if options.download:
        images, labels = download(options.download)
    elif options.images and options.labels:
        images, labels = options.images, options.labels
    else:
        raise UserError("give --images and --labels, or --download FOLDER")
    rebuild(images, labels, options.out)
    print(f"done: {Path(options.out) / 'train'} for training, phase1 and phase2 for testing")


def _add_predict(commands: argparse._SubParsersAction) -> None:
    text = "predict all images of a folder and write a table; made for millions of images"
    command = add_command(commands, "predict", text)
    command.add_argument("--data", required=True, help="folder of images, with any subfolders")
    command.add_argument("--out", required=True, help="new table, FILE.csv or FILE.parquet (the latter needs pyarrow)")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--model", help="a submission.zip or its unpacked folder (default: the committed submission/)")
    source.add_argument("--run", help="folder of a finished run or of auto")
    command.add_argument(
        "--top",
        type=whole_number,
        metavar="K",
        help="write only the K most probable classes of each image (default: probabilities of all classes)",
    )
    command.add_argument(
        "--shard-size",
        type=whole_number,
        default=10_000,
        metavar="N",
        help="images of a shard; an interruption loses at most one shard (default: %(default)s)",
    )
    command.add_argument(
        "--ray", metavar="ADDRESS", help="predict on a Ray cluster: its address, or local for a new one on this machine"
    )
    command.add_argument(
        "--workers", type=whole_number, metavar="N", help="processes of --ray (default: one on each machine)"
    )
    command.set_defaults(command=_predict)


def _predict(options: argparse.Namespace) -> None:
    from training.predict_folder.cluster import Cluster
    from training.predict_folder.command import Job, describe, predict_folder
    from training.predict_folder.submitted import SOURCE

    if options.workers is not None and not options.ray:
        raise UserError("--workers has no effect without --ray; add it, or leave out --workers")
    cluster = Cluster(options.ray, options.workers) if options.ray else None
    model, run = Path(options.model or SOURCE), Path(options.run) if options.run else None
    job = Job(Path(options.data), Path(options.out), model, run, options.shard_size, options.top, cluster)
    print(describe(job, predict_folder(job)))
