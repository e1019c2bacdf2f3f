"""Takes the numbers of a SQLite table out of the bytes of its database, all rows at once.

The layout is SQLite's published file format (https://www.sqlite.org/fileformat2.html), as far as a small table needs
it: interior pages (0x05) lead to leaf pages (0x0d); a leaf points to its cells; a cell is the length of its record, the
row's id and the record: a header of one byte for its own length and one for the type of each number, then the values,
big-endian and without gaps. What does not look like that (text for a number, a record over several pages) is refused.
"""

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_INTERIOR, _LEAF = 0x05, 0x0D
_NULL, _REAL, _ZERO, _ONE = 0, 7, 8, 9
_FILE_HEADER = 100
# By type: how many bytes a value has, and how far to shift eight bytes that begin with an integer to get that integer.
_WIDTHS = np.array([0, 1, 2, 3, 4, 6, 8, 8, 0, 0], dtype=np.int64)
_SHIFTS = np.array([63, 56, 48, 40, 32, 16, 0, 0, 63, 63], dtype=np.int64)
_WIDEST = 8
_MORE = 0x80


class UnreadableImage(ValueError):
    """The table holds something else than numbers of the expected kinds."""


def numbers(
    image: bytes, root: int, *, wholes: int, reals: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The table that begins at page `root`, by column and row in the order of rows: first its integers, of which none
    may be null, then its reals (null = NaN). Leaves out the columns after these. Raises UnreadableImage."""
    data = np.frombuffer(image + bytes(_WIDEST), dtype=np.uint8)
    count = wholes + reals
    record = _records(data, image, root)
    header = data[record].astype(np.int64)
    if (header >= _MORE).any():
        raise UnreadableImage("a record has too many columns")
    types = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(data, count)[record + 1].T)
    eights: npt.NDArray[np.int64] = np.ndarray((len(data) - _WIDEST + 1,), ">i8", data, strides=(1,))
    integers = np.empty((wholes, len(record)), dtype=np.int64)
    real = np.empty((reals, len(record)), dtype=np.float64)
    at = record + header
    for place, kinds in enumerate(types):
        # most columns have one type: then its width and shift are single numbers
        kind = kinds[:1] if (kinds == kinds[:1]).all() else kinds
        if place < wholes:
            if ((kind == _NULL) | (kind == _REAL) | (kind > _ONE)).any():
                raise UnreadableImage("a value is not an integer")
            values = eights[at] >> _SHIFTS[kind]
            integers[place] = np.where(kind >= _ZERO, kind.astype(np.int64) - _ZERO, values)
        else:
            if ((kind != _NULL) & (kind != _REAL)).any():
                raise UnreadableImage("a value is not a real number")
            real[place - wholes] = np.where(kind == _REAL, eights[at].view(">f8"), np.nan)
        at += _WIDTHS[kind]
    return integers, real


def _records(data: Bytes, image: bytes, root: int) -> npt.NDArray[np.int64]:
    """Where each record begins, in the order of rows."""
    found = [np.zeros(0, dtype=np.int64), *_cells(data, image, root)]
    at = np.concatenate(found)
    long = data[at] >= _MORE
    if (long & (data[at + 1] >= _MORE)).any():
        raise UnreadableImage("a record is too long for one page")
    at += 1 + long
    # the id of a row: up to three bytes
    long = data[at] >= _MORE
    longer = long & (data[at + 1] >= _MORE)
    if (longer & (data[at + 2] >= _MORE)).any():
        raise UnreadableImage("too many rows")
    at += 1 + long + longer
    return at


def _cells(data: Bytes, image: bytes, page: int) -> Iterator[npt.NDArray[np.int64]]:
    """Where the cells of the leaves below a page are, leaf by leaf."""
    # two bytes that cannot say 65,536 say 1 instead
    size = int.from_bytes(image[16:18], "big")
    size = 1 << 16 if size == 1 else size
    begin = (page - 1) * size
    header = begin + (_FILE_HEADER if page == 1 else 0)
    kind, _, cells = struct.unpack_from(">BHH", image, header)
    if kind == _LEAF:
        yield begin + data[header + 8 : header + 8 + 2 * cells].view(">u2").astype(np.int64)
        return
    if kind != _INTERIOR:
        raise UnreadableImage(f"page {page} is not one of a table")
    for at in struct.unpack_from(f">{cells}H", image, header + 12):
        yield from _cells(data, image, struct.unpack_from(">I", image, begin + at)[0])
    yield from _cells(data, image, struct.unpack_from(">I", image, header + 8)[0])
