"""The rules of a submission's zip, and unpacking it without trusting it."""

import lzma
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LIMIT_MB = 300  # CodaLab's default for one submission
UNPACKED_LIMIT_MB = 2000  # no honest model of 300 MB unpacks to more
ENTRIES_LIMIT = 10_000
DEPTH_LIMIT = 50  # folders in one another
METADATA_KEYS = ("description", "command")


@dataclass(frozen=True)
class Check:
    """One verdict: what was looked at, whether it holds, and if not, why and what to do."""

    name: str
    passed: bool
    reason: str = ""
    mend: str = ""


def inspect(path, limit_mb=LIMIT_MB):
    """Looks at a zip as the server will, without unpacking it.

    Args:
        path: the zip.
        limit_mb: largest size accepted, in MB of 1,000,000 bytes.

    Returns:
        List of `Check`; the zip is fit to be unpacked only if all have passed.
    """
    path = Path(path)
    if not path.is_file():
        return [Check("zip", False, f"no file at {path}", "build it: python build_submission.py")]
    try:
        with zipfile.ZipFile(path) as archive:
            return [_size(path, limit_mb), *_rules(archive)]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError, EOFError) as error:
        return [Check("zip", False, f"{path} is damaged or no zip: {error}", "build it again: python build_submission.py")]


def extract(path, folder):
    """Unpacks a zip that `inspect` has passed.

    Only what a plain file's entry declares is written, so an entry that lies about its size stops the unpacking.

    Raises:
        ValueError: an entry that is larger than it declares.
        OSError, zipfile.BadZipFile: the disk or the zip.
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
                    raise ValueError(f"{entry.filename} has {sink.tell()} bytes and declares {entry.file_size}")


def check_metadata(text, name="metadata"):
    """The `metadata` file: its presence marks a code submission, and CodaLab fetches unknown keys as addresses."""
    mend = f"make {name} empty, or one line: description: what this is"
    for line in text.splitlines():
        key, colon, _ = line.partition(":")
        if line.strip() and (not colon or key.strip() not in METADATA_KEYS):
            return Check(name, False, f"the server would not understand its line {line.strip()[:60]!r}", mend)
    return Check(name, True)


def _size(path, limit_mb):
    size = path.stat().st_size / 1e6
    if size > limit_mb:
        return Check(
            "size", False, f"{size:.1f} MB, the limit is {limit_mb} MB", "store the weights at half precision or use a smaller network"
        )
    return Check("size", True, f"{size:.1f} of {limit_mb} MB")


def _rules(archive):
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    yield from (_bomb(entries), _names(entries))
    if sum(entry.file_size for entry in entries) <= UNPACKED_LIMIT_MB * 1e6:
        broken = _broken(archive, entries)
        again = "zip the files again: python build_submission.py"
        yield Check("contents", broken is None, f"{broken} does not have the checksum it should" if broken else "", again if broken else "")
        if broken:
            return
    yield from _root(names)
    if "model.py" in names:
        yield Check("model.py", True)
    for name in ("metadata", "metadata.yaml"):  # Codabench looks for the second one first
        if name in names:
            yield _metadata(archive, name)


def _metadata(archive, name):
    if archive.getinfo(name).file_size > 10_000:
        return Check(name, False, "it is larger than 10 kB", f"make {name} empty, or one line: description: what this is")
    return check_metadata(archive.read(name).decode("utf-8", "replace"), name)


def _broken(archive, entries):
    """The first entry that cannot be read to its end with the right checksum, or None."""
    for entry in entries:
        try:
            with archive.open(entry) as source:
                while source.read(1 << 20):
                    pass
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError):
            return entry.filename
    return None


def _bomb(entries):
    total = sum(entry.file_size for entry in entries)
    if len(entries) > ENTRIES_LIMIT or total > UNPACKED_LIMIT_MB * 1e6:
        reason = (
            f"{len(entries):,} entries that unpack to {total / 1e6:,.0f} MB, accepted are {ENTRIES_LIMIT:,} and {UNPACKED_LIMIT_MB:,} MB"
        )
        return Check("unpacked size", False, reason, "leave out everything that prediction does not need")
    return Check("unpacked size", True, f"{total / 1e6:.1f} MB in {len(entries)} entries")


def _names(entries):
    """Names that unpack to one place each, inside the folder, on any system."""
    mend = "zip the files again: python build_submission.py"
    seen = set()
    for entry in entries:
        name = entry.filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        path = PurePosixPath(name)
        folded = unicodedata.normalize("NFC", str(path)).casefold()
        problem = None
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
            problem = "points outside the folder"
        elif "\\" in name or "\0" in name or any(unicodedata.category(c) == "Cc" for c in name):
            problem = "has a character that is not portable"
        elif len(path.parts) > DEPTH_LIMIT or any(len(part.encode("utf-8", "replace")) > 255 for part in path.parts):
            problem = "is nested too deeply or too long"
        elif not name.isascii() and not entry.flag_bits & 0x800:
            problem = "is in another encoding than UTF-8"
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "is a link or a device, not a plain file"
        elif entry.flag_bits & 0x1:
            problem = "is encrypted"
        elif folded in seen or not path.parts:
            problem = "stands there twice"
        seen.add(folded)
        if problem:
            return Check("names", False, f"the entry {name[:80]!r} {problem}", mend)
    return Check("names", True)


def _root(names):
    for required, purpose in (("model.py", "the code"), ("metadata", "the mark of a code submission; without it the code never runs")):
        if required in names:
            continue
        elsewhere = [name for name in names if PurePosixPath(name).name == required]
        if elsewhere:
            reason = f"it stands in the folder {PurePosixPath(elsewhere[0]).parent}/, not at the zip's root"
            yield Check(required, False, reason, "zip the folder's contents, not the folder")
        else:
            yield Check(required, False, f"there is no {required} ({purpose})", f"add {required} at the zip's root")
