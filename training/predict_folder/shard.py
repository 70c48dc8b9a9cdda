"""Predicts the images of one shard. Files are decoded ahead in threads while the model predicts."""

import contextlib
import itertools
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from common.errors import UserError
from common.folders import printable
from common.image_file import decode, read_file, reason_of
from common.machine import available_cores
from training.predict_folder.submitted import FLOAT32, image_size, load
from training.predict_folder.table import columns, encode

AHEAD = 128  # decoded images that wait at most; limits the memory


@dataclass(frozen=True)
class Part:
    """The result of a shard.

    table: content of a CSV or Parquet file with a row for each readable image.
    errors: content of a CSV file with a row (path, reason) for each other file.
    precision: in which the model computed, "float32" or "bfloat16".
    """

    table: bytes
    errors: bytes
    precision: str


class Missing(str):
    """The reason of a file that does not exist."""


@dataclass(frozen=True)
class Task:
    """What all shards have in common.

    data: folder that the paths are relative to.
    suffix: of the tables, .csv or .parquet.
    top: see `table.columns`.
    """

    data: Path
    suffix: str
    top: int | None = None


class ShardPredictor:
    """A loaded model that predicts shards.

    Args:
        folder: an unpacked submission.
        task: what all shards have in common.
        precision: see `submitted.load`.

    Attributes:
        precision: in which the model computes, "float32" or "bfloat16".

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(self, folder: Path, task: Task, precision: str = "") -> None:
        self.task = task
        self.size = image_size(folder)
        self.model = load(folder, precision)
        self.precision = str(getattr(self.model, "precision", FLOAT32))

    def predict(self, paths: Sequence[str], tick: Callable[[], object] = lambda: None) -> Part:
        """Predicts images.

        Args:
            paths: the files of a shard, relative to the folder of all images.
            tick: called once for each file.

        Raises:
            UserError: the model returns no probabilities, or the files are not there any more.
            OSError: the disk or the network failed, so that the files may be good.
        """
        readable: list[str] = []
        missing: list[str] = []
        errors = [("path", "reason")]

        def images() -> Generator[np.ndarray, None, None]:
            with contextlib.closing(_decode_ahead(self.task.data, paths, self.size)) as results:
                for path, result in results:
                    tick()
                    if isinstance(result, str):
                        errors.append((path, result))
                        if isinstance(result, Missing):
                            missing.append(path)
                    else:
                        readable.append(path)
                        yield result

        with warnings.catch_warnings(), contextlib.closing(images()) as stream:
            warnings.filterwarnings("ignore", module="PIL")  # damaged metadata
            first = next(stream, None)
            # The model refuses an iterator without an image.
            probabilities = None if first is None else self.model.predict_proba(itertools.chain([first], stream))
        if len(missing) == len(paths) or (missing and _is_gone(self.task.data)):
            raise UserError(
                f"{printable(self.task.data)} must be readable until the end, and {len(missing)} of {len(paths)} files "
                f"are not there, the first is {printable(missing[0])}; mount it again (with --ray on every machine), "
                "and repeat the command"
            )
        table = columns(readable, self._checked(probabilities, len(readable)), self.model.names, self.task.top)
        failed = dict(zip(errors[0], np.array(errors[1:], object).reshape(-1, 2).T, strict=True))
        failed["path"] = np.array([printable(path) for path in failed["path"]], object)
        return Part(encode(table, self.task.suffix), encode(failed, ".csv"), self.precision)

    def _checked(self, probabilities: np.ndarray | None, count: int) -> np.ndarray:
        """The probabilities as float32 [count, classes]."""
        shape = (count, len(self.model.names))
        result = np.empty(shape, np.float32) if probabilities is None else np.asarray(probabilities, np.float32)
        if result.shape != shape or not np.isfinite(result).all():
            got = "NaN or infinity" if result.shape == shape else f"the shape {result.shape}"
            raise UserError(f"the model must return {shape[1]} probabilities for each image, got {got}; train it again")
        return result


def _is_gone(folder: Path) -> bool:
    """Whether a folder does not exist or is empty, as the mount point of a disk that was removed is."""
    return not folder.is_dir() or not any(folder.iterdir())


def _decode_ahead(
    data: Path, paths: Sequence[str], size: tuple[int, int]
) -> Generator[tuple[str, np.ndarray | str], None, None]:
    """Yields each path with its pixels, uint8 [h, w, 3], or with the reason why it has none, in order."""
    waiting: deque[tuple[str, Future]] = deque()
    pool = ThreadPoolExecutor(available_cores())
    try:
        for path in paths:
            waiting.append((path, pool.submit(_read, data / path, size)))
            if len(waiting) == AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(path: Path, size: tuple[int, int]) -> np.ndarray | str:
    """The pixels of a file at the size of the training images, or a reason."""
    try:
        data = read_file(path)
    except FileNotFoundError as error:
        return Missing(error.strerror or type(error).__name__)
    except (PermissionError, UnidentifiedImageError) as error:  # any other error is of the disk or the network
        return reason_of(error)
    try:
        return np.asarray(decode(data, size).image)
    except MemoryError:
        raise
    except Exception as error:  # each of Pillow's decoders raises its own
        return reason_of(error)
