"""Zips that the server would refuse, and zips that are unsafe to unpack."""

import errno
import io
import os
import random
import re
import stat
import struct
import tracemalloc
import zipfile

import pytest

from common.errors import UserError
from competition.package import archive
from competition.package.archive import check_metadata, extract, inspect, may_be_unpacked, megabytes

pytestmark = pytest.mark.unit

CODE = "class model:\n    pass\n" + "# compressible filler\n" * 200
CHECK_NAMES = ["size", "unpacked size", "names", "contents", "model.py", "metadata"]


def make(path, entries=(), method=zipfile.ZIP_DEFLATED, code=CODE, metadata=""):
    """Writes a valid zip with additional entries (name or ZipInfo, content). None omits model.py or metadata."""
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in (("model.py", code), ("metadata", metadata), *entries):
            if content is not None:
                target.writestr(name, content)
    return path


def replace_bytes(path, old, new):
    """Replaces bytes by others of the same length, in all headers."""
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


def set_method(path, method):
    """Sets the compression method in the central directory."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.find(b"PK\x01\x02") + 10, method)
    path.write_bytes(data)
    return path


def declare(path, name, size):
    """Sets the unpacked size of an entry in the central directory."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while data[at + 46 : at + 46 + len(name)] != name.encode():
        at = data.index(b"PK\x01\x02", at + 4)
    struct.pack_into("<I", data, at + 24, size)
    path.write_bytes(data)
    return path


def failed(path, **options):
    """Returns the failed checks. Each has a reason and a fix."""
    checks = [check for check in inspect(path, **options) if not check.passed]
    assert all(check.reason and check.fix for check in checks)
    return checks


def only_failure(path, name, **options):
    """Returns the failed check, which must be the only one and have the given name."""
    checks = failed(path, **options)
    assert [check.name for check in checks] == [name]
    return checks[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_valid_zip_passes_all_checks_and_unpacks(tmp_path, method):
    path = make(
        tmp_path / "good.zip", [("SubmissionModel/", ""), ("SubmissionModel/saved_model.pb", b"\0" * 5000)], method
    )
    checks = inspect(path)
    assert [check.name for check in checks] == CHECK_NAMES
    assert all(check.passed for check in checks)
    extract(path, tmp_path / "out")
    assert (tmp_path / "out" / "model.py").read_text() == CODE
    assert (tmp_path / "out" / "SubmissionModel" / "saved_model.pb").stat().st_size == 5000


def test_unicode_names_pass(tmp_path):
    assert failed(make(tmp_path / "good.zip", [("Blätter/楓.txt", "x")])) == []


def test_missing_file_or_folder_is_wrong_input(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"no file at {tmp_path / 'none.zip'}; build it: python build_sub")):
        inspect(tmp_path / "none.zip")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path} is a folder; python build_submission.py makes one")):
        inspect(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 100, b"\x1f\x8b" + b"\0" * 100])
def test_other_content_is_reported_as_not_a_zip(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    assert "not a zip" in only_failure(tmp_path / "a.zip", "zip").reason


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_zip_is_reported(tmp_path, share):
    data = make(tmp_path / "a.zip", [("noise", os.urandom(4000))]).read_bytes()
    (tmp_path / "a.zip").write_bytes(data[: int(len(data) * share)])
    assert "damaged" in only_failure(tmp_path / "a.zip", "zip").reason


METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
def test_methods_that_unpack_without_a_limit_are_refused_unread(tmp_path, method, name):
    """Python unpacks all that a block holds before it looks at the declared size."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model.py", CODE, zipfile.ZIP_DEFLATED)
        archive.writestr("metadata", "", zipfile.ZIP_STORED)
        archive.writestr("bomb", bytes(10_000_000))
    data = bytearray(path.read_bytes())
    real, declared = (size.to_bytes(4, "little") for size in (10_000_000, 1000))
    assert data.count(real) == 2
    path.write_bytes(data.replace(real, declared))
    tracemalloc.start()
    (check,) = failed(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert check.name == "names" and f"'bomb' is compressed with {name}" in check.reason
    assert "Deflate is required" in check.reason
    assert peak < 2_000_000
    assert may_be_unpacked(inspect(path))  # a server would, so the verdict does not say that it refuses the zip


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_metadata_that_cannot_be_read_within_a_limit_may_be_good_for_a_server(tmp_path, method):
    path = make(tmp_path / "a.zip", method=method)
    only_failure(path, "names")
    assert may_be_unpacked(inspect(path))


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c", "a/b"), ("A", "a/b")])
def test_an_entry_that_is_a_file_and_a_folder_is_refused(tmp_path, names):
    check = only_failure(make(tmp_path / "a.zip", [(name, "x") for name in names]), "names")
    assert "is a file and a folder" in check.reason


def test_a_folder_entry_may_have_files(tmp_path):
    assert failed(make(tmp_path / "a.zip", [("a/", ""), ("a/b", "x")])) == []


def test_damaged_metadata_of_a_zip_too_large_to_be_read_is_a_failed_check(tmp_path):
    path = make(tmp_path / "a.zip", metadata="description: " + "x" * 500, code=CODE)
    with zipfile.ZipFile(path) as archive:
        metadata, code = archive.getinfo("metadata"), archive.getinfo("model.py")
    data = bytearray(path.read_bytes())
    place = metadata.header_offset + 30 + len("metadata")
    data[place : place + metadata.compress_size] = b"\xff" * metadata.compress_size
    size = code.file_size.to_bytes(4, "little")
    central = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model.py"))
    assert data[central + 24 : central + 28] == size
    data[central + 24 : central + 28] = (3_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    assert "zip" in {check.name for check in failed(path)}


@pytest.mark.parametrize("method", METHODS)
def test_flipped_byte_in_the_data_is_a_failed_check(tmp_path, method):
    """At every position and with every decompressor: a failed check, not an exception."""
    noise = random.Random(0).randbytes(1000).hex()
    for offset in range(60, 500, 20):
        path = make(tmp_path / "a.zip", method=METHODS[method], code=noise)
        data = bytearray(path.read_bytes())
        data[offset] ^= 0xFF
        path.write_bytes(data)
        check = only_failure(path, "contents")
        assert "model.py" in check.reason


def test_wrapper_folder_is_named(tmp_path):
    entries = [("submission/model.py", CODE), ("submission/metadata", "")]
    checks = failed(make(tmp_path / "a.zip", entries, code=None, metadata=None))
    assert [check.name for check in checks] == ["model.py", "metadata"]
    for check in checks:
        assert "in the folder submission/" in check.reason
        assert "contents of the folder" in check.fix


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        ({"code": None}, ["model.py"]),
        ({"metadata": None}, ["metadata"]),
        ({"code": None, "metadata": None}, ["model.py", "metadata"]),
    ],
    ids=["model.py", "metadata", "both"],
)
def test_missing_files_are_named(tmp_path, missing, names):
    checks = failed(make(tmp_path / "a.zip", **missing))
    assert [check.name for check in checks] == names
    for check in checks:
        assert check.reason.startswith(f"there is no {check.name}")
        assert check.fix.startswith(f"add {check.name}")


def test_missing_metadata_is_explained(tmp_path):
    assert "the code never runs" in only_failure(make(tmp_path / "a.zip", metadata=None), "metadata").reason


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "description: leaves", "description: two words, (8) classes, -3\r\n", "description: http://a/b"],
)
def test_valid_metadata_passes(tmp_path, text):
    assert check_metadata(text).passed
    assert failed(make(tmp_path / "a.zip", metadata=text)) == []


@pytest.mark.parametrize("blank", ["\r", "\t", "\u0085", "\u2028", "\u00a0"])
def test_metadata_with_a_line_of_other_blank_characters_fails(tmp_path, blank):
    """The server's ingestion program refuses it."""
    only_failure(make(tmp_path / "a.zip", metadata=f"description: x\n{blank}"), "metadata")
    assert check_metadata("description: x\n  \n").passed


def test_files_with_a_leading_slash_are_those_of_the_root(tmp_path):
    """Python unpacks /model.py as model.py."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("/model.py", CODE)
        archive.writestr("/metadata", "")
    checks = inspect(tmp_path / "a.zip", 300)
    assert [check.name for check in checks if not check.passed] == ["names"]
    assert may_be_unpacked(checks)


def test_metadata_with_a_repeated_line_fails(tmp_path):
    """YAML allows no key twice; which of the two a reader takes is not defined."""
    check = only_failure(make(tmp_path / "a.zip", metadata="description: a\ndescription: b"), "metadata")
    assert check.reason == "description appears twice"


@pytest.mark.parametrize(
    "text", ["image: python:3", "description: x\nsubmission: http://example.com", "just text", "Description: x"]
)
def test_metadata_with_an_unknown_key_fails(tmp_path, text):
    check = only_failure(make(tmp_path / "a.zip", metadata=text), "metadata")
    assert repr(text.splitlines()[-1]) in check.reason
    assert "make metadata empty" in check.fix


@pytest.mark.parametrize(
    "text", ["command: python3 model.py", "description: x\ncommand: sh\n", "command : x", "command:"]
)
def test_metadata_with_a_command_fails(tmp_path, text):
    """Both servers start it in a container of its own, which the ingestion program does not control."""
    check = only_failure(make(tmp_path / "a.zip", metadata=text), "metadata")
    assert "start its command" in check.reason
    assert "make metadata empty" in check.fix


@pytest.mark.parametrize(
    "value",
    ["a: b", "a:", "a #b", "[", "{", "- a", '"', "'", "&", "*a", "!!x", "|", "> a", "@a", "`a", "%a", "=", "", "a\tb"]
    + ["2001-99-99", "!!int ''", "[" * 5000, '"quoted"', "{a: b}", "a\n  b"],
)
def test_metadata_that_is_no_plain_text_in_yaml_fails(tmp_path, value):
    """CodaLab's worker fails if the file is not valid YAML."""
    check = only_failure(make(tmp_path / "a.zip", metadata=f"description: {value}\n"), "metadata")
    assert re.search("the server would not|has no text", check.reason) and "\n" not in check.reason
    assert "description: what this is" in check.fix


@pytest.mark.parametrize("value", ["7", "0x1f", ".5", "yes", "null", "~", "2022-11-01"])
def test_metadata_with_a_number_a_date_or_another_plain_value_passes(tmp_path, value):
    """Both servers ignore the description, whatever its type."""
    checks = inspect(make(tmp_path / "a.zip", metadata=f"description: {value}\n"))
    assert all(check.passed for check in checks)


@pytest.mark.parametrize("name", ["metadata", "model.py"])
def test_a_folder_is_not_the_required_file(tmp_path, name):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for other in {"metadata", "model.py"} - {name}:
            archive.writestr(other, "")
        archive.writestr(f"{name}/", "")
        archive.writestr(f"{name}/notes.txt", "x")
    check = next(check for check in inspect(path) if check.name == name)
    assert not check.passed and f"there is no {name}" in check.reason


@pytest.mark.parametrize("name", ["metadata", "metadata.yaml"])
@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff\xfe\x00", "would not understand"), (b"#" * 10_001, "larger than 10 kB")]
)
def test_metadata_that_is_binary_or_too_large_fails(tmp_path, name, content, reason):
    entries = [(name, content)] if name == "metadata.yaml" else []
    path = make(tmp_path / "a.zip", entries, metadata=content if name == "metadata" else "")
    assert reason in only_failure(path, name).reason


UNSAFE_NAMES = {
    "points outside the folder": [
        "../evil.py",
        "a/../../evil.py",
        "/etc/evil",
        "//host/evil",
        "C:/evil",
        "c:evil",
        "a/..",
    ],
    "not portable": ["a\\b", "..\\evil", "line\nbreak", "bell\x07"],
    "nested too deeply or too long": ["/".join("a" * 51), "a" * 256, "/".join(["a" * 250] * 4)],
    "not a file name": ["./"],
}


@pytest.mark.parametrize(
    ("name", "problem"), [(name, problem) for problem in UNSAFE_NAMES for name in UNSAFE_NAMES[problem]]
)
def test_unsafe_names_fail(tmp_path, name, problem):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # set afterwards, because ZipInfo cleans the name that it is given
    reason = only_failure(make(tmp_path / "a.zip", [(info, "x")]), "names").reason
    assert problem in reason
    assert repr(name[:80]) in reason


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_fail(tmp_path, kind):
    info = zipfile.ZipInfo("weights")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    check = only_failure(make(tmp_path / "a.zip", [(info, "/etc/passwd")]), "names")
    assert "'weights' is a link or a device" in check.reason


SAME_PLACE = [
    ("a.txt", "A.TXT"),
    ("Dir/a", "dir/a"),
    ("ä", "a\u0308"),
    ("STRASSE", "straße"),
    ("a/b", "a//b"),
    ("a", "./a"),
    ("a/", "a"),
]


@pytest.mark.parametrize(("first", "second"), SAME_PLACE)
def test_names_that_are_one_file_on_some_system_fail(tmp_path, first, second):
    check = only_failure(make(tmp_path / "a.zip", [(first, ""), (second, "")]), "names")
    assert f"{second!r} appears twice" in check.reason


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_fail(tmp_path):
    check = only_failure(make(tmp_path / "a.zip", [("model.py", "class model: pass")]), "names")
    assert "'model.py' appears twice" in check.reason


def test_name_in_another_encoding_fails(tmp_path):
    path = replace_bytes(make(tmp_path / "a.zip", [("caf#.txt", "x")]), b"caf#.txt", b"caf\x82.txt")
    reason = only_failure(path, "names").reason
    assert "'café.txt'" in reason
    assert "UTF-8" in reason


def test_name_that_is_not_utf8_fails(tmp_path):
    path = replace_bytes(make(tmp_path / "a.zip", [("ü.txt", "x")]), "ü.txt".encode(), b"\xff\xfe.txt")
    assert "damaged" in only_failure(path, "zip").reason


@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2001])
def test_encrypted_entry_fails(tmp_path, flag):
    check = only_failure(set_flag(make(tmp_path / "a.zip"), flag), "names")
    assert "'model.py' is encrypted" in check.reason


@pytest.mark.parametrize(
    ("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (95, "XZ"), (98, "PPMd"), (77, "method 77")]
)
def test_unknown_compression_is_named(tmp_path, method, name):
    check = only_failure(set_method(make(tmp_path / "a.zip"), method), "names")
    assert f"'model.py' is compressed with {name}" in check.reason
    assert "Deflate" in check.reason
    assert "checksum" not in check.reason


def test_names_that_start_with_a_dot_and_a_slash_are_at_the_root(tmp_path):
    folder = zipfile.ZipInfo("./")
    entries = [(folder, ""), ("./model.py", CODE), ("./metadata", "description: x"), ("./SubmissionModel/./a", "x")]
    path = make(tmp_path / "a.zip", entries, code=None, metadata=None)
    checks = inspect(path)
    assert [check.name for check in checks] == CHECK_NAMES
    assert all(check.passed for check in checks)
    extract(path, tmp_path / "out")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "expected", archive.namelist()[1:])  # Python 3.12.1 cannot extract "./"
    for name in ("model.py", "metadata", "SubmissionModel/a"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_metadata_is_checked_under_either_name(tmp_path):
    path = make(tmp_path / "a.zip", [("./metadata", "image: python")], metadata=None)
    assert "'image: python'" in only_failure(path, "metadata").reason


@pytest.mark.parametrize("year", [1980, 2107])
def test_dates_of_entries_do_not_matter(tmp_path, year):
    info = zipfile.ZipInfo("a", (year, 1, 1, 0, 0, 0))
    path = make(tmp_path / "a.zip", [(info, "x")])
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<H", (year - 1980) << 9 | 1 << 5 | 1), b"\xff\xff"))  # month 15, day 31
    assert failed(path) == []
    extract(path, tmp_path / "out")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_error_of_this_computer_is_not_the_fault_of_the_zip(tmp_path, monkeypatch, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number), str(tmp_path / "a.zip"))

    path = make(tmp_path / "a.zip")
    monkeypatch.setattr(zipfile, "ZipFile", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        inspect(path)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0"), (1, "1e-06"), (400, "0.0004"), (99_000, "0.099"), (2_000_000, "2.0"), (3e9, "3,000.0")],
)
def test_only_an_empty_file_has_0_megabytes(size, text):
    assert megabytes(size) == text


def test_zip_bomb_by_size_fails_and_is_not_read(tmp_path):
    path = make(tmp_path / "a.zip", [(f"zeros{number}", "x") for number in range(5)])
    for number in range(5):
        declare(path, f"zeros{number}", 3_000_000_000)
    checks = failed(path)
    assert checks[0].name == "unpacked size"
    assert "15,000 MB" in checks[0].reason
    assert "contents" not in [check.name for check in inspect(path)]


def test_zip_bomb_by_number_of_entries_fails(tmp_path):
    path = make(tmp_path / "a.zip", [(f"{number}", "") for number in range(10_001)])
    assert "10,003 entries" in only_failure(path, "unpacked size").reason


def test_entry_larger_than_declared_fails_without_unpacking_it(tmp_path):
    path = declare(make(tmp_path / "a.zip", [("zeros", bytes(100_000_000))]), "zeros", 1000)
    tracemalloc.start()
    try:
        check = only_failure(path, "contents")
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


def test_size_limit_is_checked(tmp_path):
    path = make(tmp_path / "a.zip", [("noise", os.urandom(2_000_000))])
    assert failed(path, limit_mb=2.1) == []
    check = only_failure(path, "size", limit_mb=1.9)
    assert "2.0 MB" in check.reason
    assert "limit is 1.9 MB" in check.reason
    assert archive.LIMIT_MB == 300


def test_directory_of_millions_of_entries_is_not_read(tmp_path):
    """It is one for each 47 bytes, and Python needs some 700 bytes of memory for each."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, *[0] * 8, 1, *[0] * 6) + b"a"
    directory = entry * 300_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 300_000 & 0xFFFF, 300_000 & 0xFFFF, len(directory), 0, 0)
    path = tmp_path / "a.zip"
    path.write_bytes(directory + end)
    tracemalloc.start()
    try:
        assert "directory is larger than 10 MB" in only_failure(path, "zip").reason
        only_failure(path, "size", limit_mb=1)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_inspect_does_not_change_the_zip(tmp_path):
    path = make(tmp_path / "a.zip")
    before = path.read_bytes()
    inspect(path)
    assert path.read_bytes() == before
    assert zipfile.ZipFile(io.BytesIO(before)).testzip() is None
