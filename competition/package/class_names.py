"""Reads a model's class names and image size from its SavedModel, without TensorFlow and safely from untrusted files.

They are constants that the SavedModel's signature `about` returns, see training/export.py. Only what leads to it
is parsed: https://protobuf.dev/programming-guides/encoding describes the format, TensorFlow's .proto files the fields.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common.folders import printable

MAX_FIELDS = 2_000_000  # that are read in all; the committed model needs 331
MAX_STEPS = 20  # from the signature to the constant
MAX_CLASSES = 10_000
MAX_NAME = 255  # bytes, as of a folder
MAX_SIDE = 4096  # pixels
LISTED = 10  # of many classes, in a text
VARINT, LENGTH_DELIMITED = 0, 2  # wire types
FIXED_SIZES = {1: 8, 5: 4}  # wire type → bytes


def class_names(path: Path | str) -> tuple[str, ...] | None:
    """Returns the class names in a `saved_model.pb`, in the order of the probabilities.

    Args:
        path: the file.

    Returns:
        The names, or None if the file is missing, damaged or without names, or if they are no class names: two are
        equal, or one is too long or cannot be printed.
    """
    try:
        names = _Reader(MAX_FIELDS).strings(np.memmap(path, mode="r").data, b"about", b"names")
    except (OSError, ValueError, IndexError, KeyError):
        return None
    return names if _are_usable(names) else None


def model_size(path: Path | str) -> tuple[int, int] | None:
    """Returns the (height, width) in pixels of the images that a model in a `saved_model.pb` was trained on.

    None if the file is missing, damaged or without a size.
    """
    try:
        height, width = _Reader(MAX_FIELDS).integers(np.memmap(path, mode="r").data, b"about", b"size")
    except (OSError, ValueError, IndexError, KeyError):
        return None
    return (height, width) if min(height, width) > 0 and max(height, width) <= MAX_SIDE else None


def listed_names(path: Path) -> tuple[str, ...] | None:
    """Returns the class names in a text file, one a line, or None if it has none; see `class_names`.

    The starting kit of a hosted competition has such a file, `classes.txt`, and so have submissions made from it.
    """
    try:
        with path.open("rb") as file:
            text = file.read((MAX_NAME + 2) * MAX_CLASSES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    return names if _are_usable(names) else None


def _are_usable(names: Sequence[str]) -> bool:
    """Whether these can be class names: different and printable ones, neither too few nor too many nor too long."""
    if not 1 < len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        return False
    return all(len(name.encode()) <= MAX_NAME and name == printable(name) for name in names)


def numbered(names: Sequence[str]) -> str:
    """Returns the classes with their numbers as one text."""
    return shortened([f"{number} = {name}" for number, name in enumerate(names)])


def shortened(items: Sequence[str], most: int = LISTED) -> str:
    """Returns the items as one text. Of more than `most`, the first ones and the last one."""
    return ", ".join([*items[: most - 1], "…", items[-1]] if len(items) > most else items)


def order_note(names: Sequence[str]) -> str:
    """Returns a note for the user if the classes are in another order than their names as text, else "".

    Keras' `image_dataset_from_directory` and scikit-learn's `LabelEncoder` number the classes in the order of the text.
    A server compares numbers, so nothing else would show that its order is another one. Names that are the numbers
    themselves need no note.
    """
    if list(names) == [str(number) for number in range(len(names))]:
        return ""
    for number, (name, other) in enumerate(zip(names, sorted(names), strict=True)):
        if name != other:
            return (
                f"class {number} is {name}, and {other} where classes are sorted as text, as by Keras: compare with "
                "the competition's class numbers; for another order, name the class folders 00_…, 01_… and train again"
            )
    return ""


class _Reader:
    """Reads messages, and raises a ValueError after a number of fields.

    A small zip unpacks to a file in which every step to the constant leads through millions of fields.

    Args:
        left: the number.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def strings(self, saved_model: memoryview, signature: bytes, output: bytes) -> tuple[str, ...]:
        """The strings of a constant that a signature returns."""
        values = list(self._values(self._constant(saved_model, signature, output), 8))
        if max(map(len, values), default=0) > MAX_NAME:
            raise ValueError("a name is too long")
        return tuple(bytes(value).decode() for value in values)

    def integers(self, saved_model: memoryview, signature: bytes, output: bytes) -> tuple[int, int]:
        """The two integers of a constant that a signature returns; TensorFlow may store equal ones once."""
        tensor = self._constant(saved_model, signature, output)
        for number, value in self._fields(tensor):
            if number == 4:  # the content as bytes
                first, second = np.frombuffer(value, {8: "<i4", 16: "<i8"}.get(len(value), "<i1")).tolist()
                return first, second
            if number in (7, 10):  # int_val, int64_val
                first, place = _varint(value, 0)
                return first, _varint(value, place)[0] if place < len(value) else first
        raise ValueError("the constant has no integers")

    def _constant(self, saved_model: memoryview, signature: bytes, output: bytes) -> memoryview:
        """Follows an output of a signature through function calls and Identity nodes to its constant, a TensorProto."""
        meta_graph = self._first(saved_model, 2)
        graph = self._first(meta_graph, 2)
        functions = {self._text(self._first(f, 1), 1): f for f in self._values(self._first(graph, 2), 1)}
        tensor = self._text(self._map(self._map(meta_graph, 5)[signature], 2)[output], 1)
        nodes = self._by_name(graph, 1)
        for _ in range(MAX_STEPS):
            name, _, index = tensor.partition(b":")
            node = nodes[name]
            attributes = self._map(node, 5)
            if b"value" in attributes:  # a Const
                return self._first(attributes[b"value"], 8)
            if b"f" in attributes:  # a call of a function
                function = functions[self._text(self._first(attributes[b"f"], 10), 1)]
                returned = list(self._values(self._first(function, 1), 3))[int(index.rpartition(b":")[2] or 0)]
                tensor = bytes(self._map(function, 4)[self._text(returned, 1)])
                nodes = self._by_name(function, 3)
            else:  # an Identity
                tensor = self._text(node, 3)
        raise ValueError("the output is not a constant")

    def _values(self, message: memoryview, number: int) -> Iterator[memoryview]:
        """The values of a repeated message or string."""
        return (value for field, value in self._fields(message) if field == number)

    def _first(self, message: memoryview, number: int) -> memoryview:
        """The first value of a message or string."""
        for value in self._values(message, number):
            return value
        raise ValueError("the file is damaged")

    def _text(self, message: memoryview, number: int) -> bytes:
        """The first value of a string."""
        return bytes(self._first(message, number))

    def _map(self, message: memoryview, number: int) -> dict[bytes, memoryview]:
        """A map with strings as keys: each entry is a message of key and value."""
        return {self._text(entry, 1): self._first(entry, 2) for entry in self._values(message, number)}

    def _by_name(self, message: memoryview, number: int) -> dict[bytes, memoryview]:
        """The nodes of a graph or function."""
        return {self._text(node, 1): node for node in self._values(message, number)}

    def _fields(self, message: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yields (field number, bytes) of each field whose length is stored. Numbers are skipped."""
        place = 0
        while place < len(message):
            self.left -= 1
            if self.left < 0:
                raise ValueError("the file has too many fields")
            key, place = _varint(message, place)
            wire_type = key & 7
            if wire_type == VARINT:
                _, place = _varint(message, place)
                continue
            size = FIXED_SIZES.get(wire_type, 0)
            if wire_type == LENGTH_DELIMITED:
                size, place = _varint(message, place)
            if (not size and wire_type != LENGTH_DELIMITED) or size > len(message) - place:
                raise ValueError("the file is damaged")
            if wire_type == LENGTH_DELIMITED:
                yield key >> 3, message[place : place + size]
            place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """(the number that starts at `place`, the place after it). Seven bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("the file is damaged")
