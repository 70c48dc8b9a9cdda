"""Reads a model's class names from its SavedModel, without TensorFlow and safely also from an untrusted file.

The names are a constant that the SavedModel's signature `about` returns, see training/export.py. Only what leads to it
is parsed: https://protobuf.dev/programming-guides/encoding describes the format, TensorFlow's .proto files the fields.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common.folders import printable

MAX_FIELDS = 1_000_000  # of one message
MAX_STEPS = 20  # from the signature to the constant
MAX_CLASSES = 10_000
LISTED = 10  # of many classes, in a text
VARINT, LENGTH_DELIMITED = 0, 2  # wire types
FIXED_SIZES = {1: 8, 5: 4}  # wire type → bytes


def class_names(path: Path | str) -> tuple[str, ...] | None:
    """Returns the class names in a `saved_model.pb`, in the order of the probabilities.

    Args:
        path: the file.

    Returns:
        The names, or None if the file is missing, damaged or without names, or if they are no class names: two are
        equal, or one cannot be printed.
    """
    try:
        names = _constant(np.memmap(path, mode="r").data, b"about", b"names")
    except (OSError, ValueError, IndexError, KeyError):
        return None
    usable = 1 < len(names) <= MAX_CLASSES and len(set(names)) == len(names) and all(n == printable(n) for n in names)
    return names if usable else None


def shortened(items: Sequence[str], most: int = LISTED) -> str:
    """Returns the items as one text. Of more than `most`, the first ones and the last one."""
    return ", ".join([*items[: most - 1], "…", items[-1]] if len(items) > most else items)


def _constant(saved_model: memoryview, signature: bytes, output: bytes) -> tuple[str, ...]:
    """Follows an output of a signature through function calls and Identity nodes to its constant of strings."""
    meta_graph = _values(saved_model, 2)[0]
    graph = _values(meta_graph, 2)[0]
    functions = {_text(_values(function, 1)[0], 1): function for function in _values(_values(graph, 2)[0], 1)}
    tensor = _text(_map(_map(meta_graph, 5)[signature], 2)[output], 1)
    nodes = _values(graph, 1)
    for _ in range(MAX_STEPS):
        name, _, index = tensor.partition(b":")
        node = {_text(node, 1): node for node in nodes}[name]
        attributes = _map(node, 5)
        if b"value" in attributes:  # a Const
            return tuple(bytes(value).decode() for value in _values(_values(attributes[b"value"], 8)[0], 8))
        if b"f" in attributes:  # a call of a function
            function = functions[_text(_values(attributes[b"f"], 10)[0], 1)]
            returned = _values(_values(function, 1)[0], 3)[int(index.rpartition(b":")[2] or 0)]
            tensor, nodes = bytes(_map(function, 4)[_text(returned, 1)]), _values(function, 3)
        else:  # an Identity
            tensor = _text(node, 3)
    raise ValueError("the output is not a constant")


def _values(message: memoryview, number: int) -> list[memoryview]:
    """The values of a repeated message or string."""
    return [value for field, value in _fields(message) if field == number]


def _text(message: memoryview, number: int) -> bytes:
    """The first value of a string."""
    return bytes(_values(message, number)[0])


def _map(message: memoryview, number: int) -> dict[bytes, memoryview]:
    """A map with strings as keys: each entry is a message of key and value."""
    return {_text(entry, 1): _values(entry, 2)[0] for entry in _values(message, number)}


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields (field number, bytes) of each field whose length is stored. Numbers are skipped."""
    place = 0
    for _ in range(MAX_FIELDS):
        if place == len(message):
            return
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
    raise ValueError("the file has too many fields")


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
