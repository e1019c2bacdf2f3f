"""Columns of one length that grow together, one row per device."""

import inspect
import mmap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gateway.domain.types import Bools, Ints, Slots

Singles = NDArray[np.float32]

MAPPED_BYTES = 1 << 16

UNITS = {"w": "W", "wh": "Wh", "pct": "%", "s": "s", "ms": "ms", "c": "°C"}


def unit_of(name: str) -> str:
    """The unit that a name tells, such as `discharge_w_max`; empty = none."""
    return next((UNITS[word] for word in reversed(name.split("_")) if word in UNITS), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The declaration of a column: its kind, the value of a new slot, what it means."""

    dtype: DTypeLike
    fill: float | int | bool
    meaning: str


@dataclass(frozen=True, slots=True)
class _Declared:
    fill: float | int | bool
    meaning: str


def column(fill: float | int | bool, meaning: str = "") -> Any:
    """Declare a column of a table by the value of a new slot; its annotation says of which kind it is. `meaning` is for
    the reference; without it the table says what it means."""
    return _Declared(fill, meaning)


def _declared(table: type) -> dict[str, Column]:
    kinds = inspect.get_annotations(table)
    return {
        name: Column(dtype=_scalar(kinds[name]), fill=found.fill, meaning=found.meaning)
        for name, found in vars(table).items()
        if isinstance(found, _Declared)
    }


def _scalar(kind: Any) -> Any:
    """The numpy type in the annotation of a column, `NDArray[...]`. From Python 3.12 on that is an alias by itself with
    the type as its one argument; before it is what the alias stands for, an array of any shape and a dtype."""
    arguments = get_args(kind)
    return arguments[0] if len(arguments) == 1 else get_args(arguments[1])[0]


def blank(n: int, dtype: DTypeLike, fill: float | int | bool) -> NDArray[np.generic]:
    """A column of `fill`. Large ones are mapped: a page of zeros takes no memory until it is written, and outgrown
    columns go back to the system at once, whatever else lies on the heap."""
    size = n * np.dtype(dtype).itemsize
    memory = (
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if size >= MAPPED_BYTES else bytearray(size)
    )
    column: NDArray[np.generic] = np.frombuffer(memory, dtype=dtype)
    if fill:
        column[:] = fill
    return column


def _write(column: NDArray[np.generic], at: slice | Bools, values: NDArray[np.generic]) -> None:
    """Write to a new column, but not zeros to zeros: that would take memory. -0.0 does not count as zero."""
    if np.ascontiguousarray(values).view(np.uint8).any() or column[at].any():
        column[at] = values


def run(rows: NDArray[np.integer]) -> NDArray[np.integer] | slice:
    """The same rows as a slice where they are consecutive: many times faster to read and write by."""
    if len(rows) > 1 and rows[-1] - rows[0] == len(rows) - 1 and bool((rows[1:] > rows[:-1]).all()):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


class Table:
    """Columns of one length that grow together; subclasses declare each, see `column`. Columns that few devices need
    are filled with zero: they take no memory until written."""

    SPEC: ClassVar[Mapping[str, tuple[DTypeLike, float | int | bool]]] = {}
    COLUMNS: ClassVar[Mapping[str, Column]] = {}

    def __init_subclass__(cls) -> None:
        found = _declared(cls)
        if found:
            cls.COLUMNS, cls.SPEC = found, {name: (known.dtype, known.fill) for name, known in found.items()}
        for name in found:
            # a table has arrays under these names, and looks for nothing else
            delattr(cls, name)

    def __init__(self, capacity: int = 0) -> None:
        for name, (dtype, fill) in self.SPEC.items():
            setattr(self, name, blank(capacity, dtype, fill))

    def column(self, name: str) -> NDArray[np.generic]:
        array: NDArray[np.generic] = getattr(self, name)
        return array

    def grow(self, capacity: int) -> None:
        for name, (dtype, fill) in self.SPEC.items():
            old, new = self.column(name), blank(capacity, dtype, fill)
            _write(new, slice(len(old)), old)
            setattr(self, name, new)

    def blank(self, slot: int, *, but: Collection[str] = ()) -> None:
        """Reset a slot to the values of a new one, in all columns `but` these."""
        for name, (_, fill) in self.SPEC.items():
            if name not in but:
                self.column(name)[slot] = fill

    def load(self, name: str, values: NDArray[np.generic]) -> None:
        """Load values into the first slots of a column."""
        _write(self.column(name), slice(len(values)), values)

    def renumber(self, old_slots: Ints) -> None:
        """Give devices new slots: `old_slots[new]` is the old slot of each, -1 for a new device."""
        known = old_slots >= 0
        for name, (dtype, fill) in self.SPEC.items():
            moved = blank(len(old_slots), dtype, fill)
            _write(moved, known, self.column(name)[old_slots[known]])
            setattr(self, name, moved)

    def view(self, n: int) -> Self:
        """The first `n` rows, as a view of the same memory."""
        out, columns = object.__new__(type(self)), vars(self)
        vars(out).update({name: columns[name][:n] for name in self.SPEC})
        return out

    def frozen(self, n: int) -> Self:
        """The first `n` rows as they are and become, for those who only read: writing into one raises ValueError."""
        out = self.view(n)
        for name in self.SPEC:
            out.column(name).flags.writeable = False
        return out


def new_slots(slots: Slots, old_slots: Ints) -> Slots:
    """The new slots of devices (see `Engine.renumber`), -1 for those that are gone."""
    new_of = np.full(int(max(slots.max(initial=-1), old_slots.max(initial=-1))) + 1, -1, dtype=np.int32)
    known = old_slots >= 0
    new_of[old_slots[known]] = np.flatnonzero(known)
    return new_of[slots]
