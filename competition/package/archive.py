"""Checks a submission's zip against the server's rules and unpacks it safely."""

import errno
import io
import lzma
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from common.errors import UserError
from common.folders import printable

MODEL_NAME = "SubmissionModel"  # folder of the SavedModel in a submission
LIMIT_MB = 300  # CodaLab's default for one submission
UNPACKED_LIMIT_MB = 2000  # far above what a real model within LIMIT_MB unpacks to
ENTRIES_LIMIT = 10_000
DEPTH_LIMIT = 50  # nested folders
NAME_LIMIT = 255  # bytes of one part of a path
PATH_LIMIT = 1000  # bytes of a whole path; macOS takes 1,024, with the folder that it is unpacked to
DIRECTORY_LIMIT = 10_000_000  # bytes of a zip's directory, which Python reads as a whole: 1,000 for each entry
METADATA_LIMIT = 10_000  # bytes
METADATA_KEYS = ("description",)
BUILD_AGAIN = "zip the files again: python build_submission.py"
UNPACKABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)  # by Python
UNBOUNDED = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}  # Python unpacks gigabytes before it checks the size
OTHER_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}  # of compression
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flags: encryption, strong encryption, encrypted names
UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError)
LOCAL_ERRORS = (errno.EACCES, errno.EPERM, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
FIX_METADATA = "make {name} empty, or one line: description: what this is"
LOCAL_CHECKS = ("names", "unpacked size")  # that a server does not make
REQUIRED = {
    "model.py": "the code",
    "metadata": "it marks a code submission; without it the code never runs",
}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    name: what was checked.
    passed: whether the check passed.
    reason: what was found.
    fix: how to repair a failure.
    """

    name: str
    passed: bool
    reason: str = ""
    fix: str = ""


def inspect(path: Path | str, limit_mb: float = LIMIT_MB) -> list[Check]:
    """Checks a zip as the server does, without unpacking it.

    Args:
        path: the zip.
        limit_mb: largest accepted size, in MB of 1,000,000 bytes.

    Returns:
        The checks. The zip is safe to unpack only if all of them passed.

    Raises:
        UserError: there is no such file.
        OSError: this computer cannot read the file; the zip may be good.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"the zip must be a file, {printable(path)} is a folder; python build_submission.py makes one")
    if not path.is_file():
        raise UserError(f"the zip must exist, no file at {printable(path)}; build it: python build_submission.py")
    size = _check_size(path, limit_mb)
    if not size.passed:
        return [size]
    try:
        with _BoundedFile(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            return [size, *_check_contents(archive)]
    except (*UNREADABLE, ValueError, NotImplementedError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
            raise
        fix = "build it again: python build_submission.py"
        return [Check("zip", False, f"{path} is damaged or not a zip: {error}", fix)]


class _BoundedFile(io.BufferedReader):
    """A zip whose directory is not read if it is larger than that of any valid one."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"its directory is larger than {DIRECTORY_LIMIT / 1e6:.0f} MB")
        return super().read(size)


def may_be_unpacked(checks: Sequence[Check]) -> bool:
    """Whether a server may unpack a zip: no checks but `LOCAL_CHECKS` failed.

    Args:
        checks: what `inspect` returned. Without a passed check of metadata, an entry cannot be read at all.
    """
    failed = {check.name for check in checks if not check.passed}
    return failed <= set(LOCAL_CHECKS) and any(check.name == "metadata" and check.passed for check in checks)


def extract(path: Path | str, folder: Path | str) -> None:
    """Unpacks a zip that has passed `inspect`. Existing files are never overwritten.

    Args:
        path: the zip.
        folder: where the files are written.

    Raises:
        ValueError: the unpacked size of an entry differs from its declared size.
        OSError, zipfile.BadZipFile: the disk cannot be written, or the zip is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            target = Path(folder, *PurePosixPath(entry.filename).parts)
            if entry.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, open(target, "xb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
                if sink.tell() != entry.file_size:
                    raise ValueError(f"{entry.filename} has {sink.tell()} bytes but declares {entry.file_size}")


def unpacked_bytes(path: Path | str) -> int:
    """Returns the size that the entries of a zip declare, in bytes."""
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def check_metadata(text: str, name: str = "metadata") -> Check:
    """Checks that a metadata file is empty, or has known keys and for each a text that needs no quotes in YAML.

    CodaLab's worker fails if the file is not valid YAML, and fetches the values of unknown keys as URLs. Both servers
    start a command in a container of its own, which the ingestion program neither checks nor ends.

    Args:
        text: content of the file.
        name: name of the file.
    """
    reason, pairs = "", {}
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line.strip(" "):  # other blank characters are none of YAML's
            continue
        key, _, value = line.partition(":")
        repeated, pairs[key] = key in pairs, value.strip()
        if key.strip() == "command":
            reason = "the server would start its command beside the checked model.py"
        elif key not in METADATA_KEYS or not line.isprintable() or "\ufffd" in line:  # in place of what is not UTF-8
            reason = reason or f"the server would not understand its line {line.strip()[:60]!r}"
        elif not value.strip():
            reason = reason or f"its line {line.strip()[:60]!r} has no text"
        elif repeated:
            reason = reason or f"{key} appears twice"
    if not reason and (_parsed(text) or {}) != pairs:
        reason = f"the server would not read plain text in {text.strip()[:60]!r}"
    return Check(name, not reason, reason, FIX_METADATA.format(name=name) if reason else "")


def _parsed(text: str) -> object:
    """Returns the value of a YAML text with its numbers and dates as texts, or the text itself if it is not valid."""
    try:
        yaml.safe_load(text)
        return yaml.load(text, Loader=yaml.BaseLoader)
    except Exception:  # PyYAML's own, and what a date or a tag that means nothing raises
        return text


def _check_size(path: Path, limit_mb: float) -> Check:
    size = path.stat().st_size
    if size > limit_mb * 1e6:
        fix = "leave out files that prediction does not need, or train a smaller network"
        return Check("size", False, f"{megabytes(size)} MB, the limit is {limit_mb} MB", fix)
    return Check("size", True, f"{megabytes(size)} of {limit_mb} MB")


def megabytes(size: float) -> str:
    """Returns a number of bytes in MB of 1,000,000 bytes. Only an empty file has 0.0 MB."""
    return f"{size / 1e6:,.1f}" if size == 0 or size >= 1e5 else f"{max(size / 1e6, 1e-6):.2g}"


def _check_contents(archive: zipfile.ZipFile) -> Iterator[Check]:
    entries = archive.infolist()
    by_name = {_unpacked_name(entry): entry for entry in entries if not entry.filename.endswith("/")}
    yield from (_check_unpacked_size(entries), _check_names(entries))
    if any(map(_unreadable, entries)):
        return
    bounded = not any(entry.compress_type in UNBOUNDED for entry in entries)
    if bounded and sum(entry.file_size for entry in entries) <= UNPACKED_LIMIT_MB * 1e6:
        broken = _first_broken_entry(archive, entries)
        if broken is not None:
            yield Check("contents", False, broken, BUILD_AGAIN)
            return
        yield Check("contents", True)
    yield from _missing_files(list(by_name))
    if "model.py" in by_name:
        yield Check("model.py", True)
    for name in ("metadata", "metadata.yaml"):  # Codabench reads metadata.yaml first
        if name in by_name:
            yield _check_metadata_entry(archive, by_name[name], name)


def _unpacked_name(entry: zipfile.ZipInfo) -> str:
    """Returns where Python unpacks an entry to: ./model.py and /model.py are model.py."""
    return str(PurePosixPath(entry.filename.lstrip("/")))


def _unreadable(entry: zipfile.ZipInfo) -> str | None:
    """Returns why Python, and so the server, cannot unpack an entry, or None."""
    if entry.flag_bits & ENCRYPTED:
        return "is encrypted, and the server has no password"
    if entry.compress_type not in UNPACKABLE:
        method = OTHER_METHODS.get(entry.compress_type, f"method {entry.compress_type}")
        return f"is compressed with {method}, which the server cannot unpack; Deflate is required"
    return None


def _check_metadata_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Check:
    if entry.file_size > METADATA_LIMIT:
        return Check(name, False, "it is larger than 10 kB", FIX_METADATA.format(name=name))
    if entry.compress_type in UNBOUNDED:
        return Check(name, True, f"not read, because it is compressed with {UNBOUNDED[entry.compress_type]}")
    return check_metadata(archive.read(entry).decode("utf-8", "replace"), name)


def _first_broken_entry(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> str | None:
    """Returns what is wrong with the first entry that cannot be read completely with the right checksum."""
    for entry in entries:
        try:
            with archive.open(entry) as source:
                while source.read(1 << 20):
                    pass
        except NotImplementedError as error:
            return f"{entry.filename} cannot be unpacked: {error}"
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
                raise
            return f"{entry.filename} does not match its checksum"
    return None


def _check_unpacked_size(entries: list[zipfile.ZipInfo]) -> Check:
    """Rejects zip bombs by the number of entries and their declared sizes."""
    size = sum(entry.file_size for entry in entries)
    if len(entries) > ENTRIES_LIMIT or size > UNPACKED_LIMIT_MB * 1e6:
        reason = (
            f"{len(entries):,} entries that unpack to {size / 1e6:,.0f} MB, "
            f"the limits are {ENTRIES_LIMIT:,} entries and {UNPACKED_LIMIT_MB:,} MB"
        )
        return Check("unpacked size", False, reason, "leave out everything that prediction does not need")
    return Check("unpacked size", True, f"{size / 1e6:.1f} MB in {len(entries)} entries")


def _check_names(entries: list[zipfile.ZipInfo]) -> Check:
    """Checks that on every system each name unpacks to its own place inside the folder."""
    seen: set[str] = set()
    files: set[str] = set()
    for entry in entries:
        # Some file systems do not distinguish upper from lower case, or composed from decomposed letters.
        place = unicodedata.normalize("NFC", _unpacked_name(entry)).casefold()
        problem = _problem(entry)
        if problem is None and place in seen and place != ".":
            problem = "appears twice"
        if problem is not None:
            return Check("names", False, f"the entry {entry.filename[:80]!r} {problem}", BUILD_AGAIN)
        seen.add(place)
        if not entry.is_dir():
            files.add(place)
    for place in seen:
        if blocked := files.intersection(str(parent) for parent in PurePosixPath(place).parents):
            return Check("names", False, f"the entry {min(blocked)[:80]!r} is a file and a folder", BUILD_AGAIN)
    return Check("names", True)


def _problem(entry: zipfile.ZipInfo) -> str | None:
    """Returns why an entry cannot be unpacked safely on every system, or None."""
    name, path = entry.filename, PurePosixPath(entry.filename)
    file_type = stat.S_IFMT(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        return "points outside the folder"
    if not path.parts and not (name.endswith("/") and not entry.file_size):  # ./ is the folder itself
        return "is not a file name"
    if "\\" in name or any(unicodedata.category(character) == "Cc" for character in name):
        return "has a character that is not portable"
    longest = max((len(part.encode("utf-8", "replace")) for part in path.parts), default=0)
    if len(path.parts) > DEPTH_LIMIT or longest > NAME_LIMIT or len(name.encode("utf-8", "replace")) > PATH_LIMIT:
        return "is nested too deeply or too long"
    if not name.isascii() and not entry.flag_bits & 0x800:
        return "is in another encoding than UTF-8"
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a regular file"
    if entry.compress_type in UNBOUNDED:
        return f"is compressed with {UNBOUNDED[entry.compress_type]}, whose size cannot be limited; Deflate is required"
    return _unreadable(entry)


def _missing_files(names: list[str]) -> Iterator[Check]:
    for required, purpose in REQUIRED.items():
        if required in names:
            continue
        elsewhere = [name for name in names if PurePosixPath(name).name == required]
        if elsewhere:
            reason = f"it is in the folder {PurePosixPath(elsewhere[0]).parent}/, not at the root of the zip"
            yield Check(required, False, reason, "zip the contents of the folder, not the folder")
        else:
            yield Check(required, False, f"there is no {required} ({purpose})", f"add {required} at the zip's root")
