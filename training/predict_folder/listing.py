"""Lists the files of a folder in a fixed order, on disk, and cuts the list into shards."""

import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.files import atomically
from common.folders import is_hidden
from common.progress import progress

END = b"\0"  # the only byte that no path contains


@dataclass(frozen=True)
class Listing:
    """A list of files that is kept on disk, because millions of paths would fill the memory.

    path: the list; each path is relative to the folder and ends with a zero byte.
    starts: byte in the list at which each shard starts, and its length.
    shard_size: files of each shard but the last.
    files: number of all files.
    skipped: number of hidden files and folders, links to folders, devices and broken links.
    sha256: of the list.
    """

    path: Path
    starts: tuple[int, ...]
    shard_size: int
    files: int
    skipped: int
    sha256: str

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.starts) - 1

    def size(self, shard: int) -> int:
        """Returns the number of files of a shard."""
        return min(self.shard_size, self.files - shard * self.shard_size)

    def read(self, shard: int) -> bytes:
        """Returns a shard's part of the list, see `paths`."""
        with open(self.path, "rb") as file:
            file.seek(self.starts[shard])
            return file.read(self.starts[shard + 1] - self.starts[shard])


def paths(part: bytes) -> list[str]:
    """Returns the relative paths in a part of a list."""
    return [os.fsdecode(path) for path in part.split(END)[:-1]]


def write_listing(folder: Path, path: Path, shard_size: int) -> Listing:
    """Lists the files of a folder and its subfolders, sorted within each folder.

    The memory holds the names of one folder at a time. Hidden and system files and folders and links to folders are
    skipped.

    Args:
        folder: what is listed.
        path: where the list is written.
        shard_size: files of each shard.

    Raises:
        OSError: a folder cannot be read, or the list cannot be written.
    """
    digest, skipped, starts, place, files = hashlib.sha256(), [0], [0], 0, 0

    def save(temporary: Path) -> None:
        nonlocal place, files
        with open(temporary, "wb") as target:
            for relative in progress(_walk(str(folder), skipped), "listing files", unit=" files"):
                if files and files % shard_size == 0:
                    starts.append(place)
                entry = os.fsencode(relative) + END
                digest.update(entry)
                target.write(entry)
                place, files = place + len(entry), files + 1

    atomically(path, save)
    return Listing(path, (*starts, place), shard_size, files, skipped[0], digest.hexdigest())


def _is_file(entry: os.DirEntry) -> bool:
    """Whether an entry is a file or a link to one. A link into a folder without permission counts as one."""
    try:
        return entry.is_file()
    except PermissionError:
        return True
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is a broken one
            return False
        raise


def _walk(top: str, skipped: list[int]) -> Iterator[str]:
    """Yields the relative path of each visible file. Counts the others in `skipped`."""
    waiting = [""]  # folders, each "" or with a slash at its end
    while waiting:
        folder = waiting.pop()
        files, folders = [], []
        with os.scandir(f"{top}/{folder}") as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    skipped[0] += 1
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif _is_file(entry):
                    files.append(entry.name)
                else:
                    skipped[0] += 1
        yield from (folder + name for name in sorted(files))
        waiting += (f"{folder}{name}/" for name in sorted(folders, reverse=True))
