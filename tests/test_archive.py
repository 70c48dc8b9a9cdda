"""competition/archive.py: zips that the server would refuse, and zips that would do harm."""

import io
import os
import random
import stat
import struct
import tracemalloc
import zipfile

import pytest

from competition import archive
from competition.archive import check_metadata, extract, inspect

CODE = "class model:\n    pass\n" + "# filler that deflates\n" * 200
ORDER = ["size", "unpacked size", "names", "contents", "model.py", "metadata"]


def make(path, entries=(), method=zipfile.ZIP_DEFLATED, code=CODE, metadata=""):
    """A good zip and further entries: (name or ZipInfo, content). None leaves model.py or metadata out."""
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in (("model.py", code), ("metadata", metadata), *entries):
            if content is not None:
                target.writestr(name, content)
    return path


def patch(path, old, new):
    """Replaces bytes of the same length, in all headers."""
    data = path.read_bytes()
    assert len(old) == len(new)
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def set_flag(path, bit):
    """Sets a general-purpose flag in the headers of all entries."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            (flags,) = struct.unpack_from("<H", data, at + offset)
            struct.pack_into("<H", data, at + offset, flags | bit)
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    return path


def declare(path, name, size):
    """Makes the central directory say that an entry unpacks to `size` bytes."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while data[at + 46 : at + 46 + len(name)] != name.encode():
        at = data.index(b"PK\x01\x02", at + 4)
    struct.pack_into("<I", data, at + 24, size)
    path.write_bytes(data)
    return path


def failed(path, **options):
    """The checks that do not hold; each says why and what to do."""
    checks = [check for check in inspect(path, **options) if not check.passed]
    assert all(check.reason and check.mend for check in checks)
    return checks


def only(path, name, **options):
    """The one check that does not hold."""
    checks = failed(path, **options)
    assert [check.name for check in checks] == [name]
    return checks[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_good_zip(tmp_path, method):
    path = make(tmp_path / "good.zip", [("SubmissionModel/", ""), ("SubmissionModel/saved_model.pb", b"\0" * 5000)], method)
    checks = inspect(path)
    assert [check.name for check in checks] == ORDER
    assert all(check.passed for check in checks)
    extract(path, tmp_path / "out")
    assert (tmp_path / "out" / "model.py").read_text() == CODE
    assert (tmp_path / "out" / "SubmissionModel" / "saved_model.pb").stat().st_size == 5000


def test_good_zip_with_names_in_unicode(tmp_path):
    assert failed(make(tmp_path / "good.zip", [("Blätter/楓.txt", "x")])) == []


def test_no_file(tmp_path):
    check = only(tmp_path / "none.zip", "zip")
    assert str(tmp_path / "none.zip") in check.reason
    assert "build_submission.py" in check.mend
    assert "no file" in only(tmp_path, "zip").reason  # a folder


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 100, b"\x1f\x8b" + b"\0" * 100])
def test_no_zip(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    assert "damaged or no zip" in only(tmp_path / "a.zip", "zip").reason


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_zip(tmp_path, share):
    data = make(tmp_path / "a.zip", [("noise", os.urandom(4000))]).read_bytes()
    (tmp_path / "a.zip").write_bytes(data[: int(len(data) * share)])
    assert "damaged or no zip" in only(tmp_path / "a.zip", "zip").reason


METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@pytest.mark.parametrize("method", METHODS)
def test_flipped_byte_in_the_data(tmp_path, method):
    """Wherever it is, and whatever the decompressor makes of it, it is a failed check and no exception."""
    noise = random.Random(0).randbytes(1000).hex()
    for offset in range(60, 500, 20):
        path = make(tmp_path / "a.zip", method=METHODS[method], code=noise)
        data = bytearray(path.read_bytes())
        data[offset] ^= 0xFF
        path.write_bytes(data)
        check = only(path, "contents")
        assert "model.py" in check.reason


def test_unknown_compression(tmp_path):
    path = make(tmp_path / "a.zip", method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.find(b"PK\x01\x02") + 10, 77)
    path.write_bytes(data)
    assert failed(path)


def test_wrapper_folder(tmp_path):
    path = make(tmp_path / "a.zip", [("submission/model.py", CODE), ("submission/metadata", "")], code=None, metadata=None)
    checks = failed(path)
    assert [check.name for check in checks] == ["model.py", "metadata"]
    for check in checks:
        assert "it stands in the folder submission/" in check.reason
        assert check.mend == "zip the folder's contents, not the folder"


def test_missing_model(tmp_path):
    assert only(make(tmp_path / "a.zip", code=None), "model.py").reason.startswith("there is no model.py")


def test_missing_metadata(tmp_path):
    check = only(make(tmp_path / "a.zip", metadata=None), "metadata")
    assert check.reason.startswith("there is no metadata")
    assert "the code never runs" in check.reason
    assert check.mend == "add metadata at the zip's root"


def test_empty_zip(tmp_path):
    assert [check.name for check in failed(make(tmp_path / "a.zip", code=None, metadata=None))] == ["model.py", "metadata"]


@pytest.mark.parametrize("text", ["", "\n\n", "description: leaves", "command: python3 model.py\ndescription: a: b\r\n"])
def test_metadata_that_the_server_understands(tmp_path, text):
    assert check_metadata(text).passed
    assert failed(make(tmp_path / "a.zip", metadata=text)) == []


@pytest.mark.parametrize("text", ["image: python:3", "description: x\nsubmission: http://example.com", "just text", "Description: x"])
def test_metadata_with_an_unknown_key(tmp_path, text):
    check = only(make(tmp_path / "a.zip", metadata=text), "metadata")
    assert repr(text.splitlines()[-1]) in check.reason
    assert "make metadata empty" in check.mend


def test_metadata_that_is_no_text(tmp_path):
    only(make(tmp_path / "a.zip", metadata=b"\xff\xfe\x00"), "metadata")
    assert "larger than 10 kB" in only(make(tmp_path / "a.zip", metadata="#" * 10_001), "metadata").reason


OUTSIDE = ["../evil.py", "a/../../evil.py", "/etc/evil", "//host/evil", "C:/evil", "c:evil", "a/.."]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_point_outside(tmp_path, name):
    check = only(make(tmp_path / "a.zip", [(name, "x")]), "names")
    assert check.reason == f"the entry {name!r} points outside the folder"


@pytest.mark.parametrize("name", ["a\\b", "..\\evil", "line\nbreak", "bell\x07"])
def test_names_that_are_not_portable(tmp_path, name):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # past ZipInfo's own cleaning
    check = only(make(tmp_path / "a.zip", [(info, "x")]), "names")
    assert check.reason == f"the entry {name!r} has a character that is not portable"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices(tmp_path, kind):
    info = zipfile.ZipInfo("weights")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    check = only(make(tmp_path / "a.zip", [(info, "/etc/passwd")]), "names")
    assert check.reason == "the entry 'weights' is a link or a device, not a plain file"


TWICE = [("a.txt", "A.TXT"), ("Dir/a", "dir/a"), ("ä", "a\u0308"), ("STRASSE", "straße"), ("a/b", "a//b"), ("a", "./a"), ("a/", "a")]


@pytest.mark.parametrize(("first", "second"), TWICE)
def test_names_of_the_same_place(tmp_path, first, second):
    """On one system or another they are the same file, and what is unpacked depends on luck."""
    check = only(make(tmp_path / "a.zip", [(first, ""), (second, "")]), "names")
    assert check.reason == f"the entry {second!r} stands there twice"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names(tmp_path):
    check = only(make(tmp_path / "a.zip", [("model.py", "class model: pass")]), "names")
    assert check.reason == "the entry 'model.py' stands there twice"


def test_a_file_that_is_also_a_folder(tmp_path):
    """Legal names, each once, but they cannot be unpacked side by side."""
    path = make(tmp_path / "a.zip", [("a", "x"), ("a/b", "x")])
    if not failed(path):
        with pytest.raises(OSError, match="a"):
            extract(path, tmp_path / "out")


def test_name_in_another_encoding(tmp_path):
    path = patch(make(tmp_path / "a.zip", [("caf#.txt", "x")]), b"caf#.txt", b"caf\x82.txt")
    assert only(path, "names").reason == "the entry 'café.txt' is in another encoding than UTF-8"


def test_name_that_is_no_utf8(tmp_path):
    path = patch(make(tmp_path / "a.zip", [("ü.txt", "x")]), "ü.txt".encode(), b"\xff\xfe.txt")
    assert "damaged or no zip" in only(path, "zip").reason


def test_encrypted(tmp_path):
    path = set_flag(make(tmp_path / "a.zip"), 0x1)
    checks = failed(path)
    assert "the entry 'model.py' is encrypted" in [check.reason for check in checks if check.name == "names"]


def test_bomb_of_many_gigabytes(tmp_path):
    path = make(tmp_path / "a.zip", [(f"zeros{number}", "x") for number in range(5)])
    for number in range(5):
        declare(path, f"zeros{number}", 3_000_000_000)
    checks = failed(path)
    assert checks[0].name == "unpacked size"
    assert "15,000 MB" in checks[0].reason
    assert "contents" not in [check.name for check in inspect(path)]  # unpacked it must not be


def test_bomb_of_many_entries(tmp_path):
    path = make(tmp_path / "a.zip", [(f"{number}", "") for number in range(10_001)])
    assert "10,003 entries" in only(path, "unpacked size").reason


def test_entry_that_is_larger_than_it_declares(tmp_path, monkeypatch):
    """Found without unpacking it whole."""
    path = declare(make(tmp_path / "a.zip", [("zeros", bytes(100_000_000))]), "zeros", 1000)
    tracemalloc.start()
    try:
        check = only(path, "contents")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "zeros" in check.reason
    assert peak < 50_000_000
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        extract(path, tmp_path / "out")
    assert (tmp_path / "out" / "zeros").stat().st_size <= 1000


def test_extract_never_overwrites(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.py").write_text("mine")
    with pytest.raises(FileExistsError):
        extract(make(tmp_path / "a.zip"), tmp_path / "out")
    assert (tmp_path / "out" / "model.py").read_text() == "mine"


def test_size_limit(tmp_path):
    path = make(tmp_path / "a.zip", [("noise", os.urandom(2_000_000))])
    assert failed(path, limit_mb=2.1) == []
    check = only(path, "size", limit_mb=1.9)
    assert check.reason == "2.0 MB, the limit is 1.9 MB"
    assert archive.LIMIT_MB == 300


def test_checks_do_not_change_the_zip(tmp_path):
    path = make(tmp_path / "a.zip")
    before = path.read_bytes()
    inspect(path)
    assert path.read_bytes() == before
    assert zipfile.ZipFile(io.BytesIO(before)).testzip() is None
