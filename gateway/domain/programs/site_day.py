"""The energy of sites on a local day, by the interval of a program: whole Wh, with coverage, quality and the revisions
of the interval records that it rests on.

A site-day as bytes: format (1), width of a number (2 or 4), count of intervals N (2 bytes, little endian), and a zlib
stream of: import, export, charge and discharge, N numbers each (all bits set = unknown), split into planes of bytes;
coverage in percent, N bytes; quality, two planes of N bytes; and its basis: count of devices (2 bytes), and for each
the length of its id (2), the id, the count of its runs (2) and the runs. A run is records that follow each other with
one length and one revision: start (s after the day began), length in s, count and revision, 4 bytes each.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from gateway.domain.errors import CorruptState, InvalidInput, invariant
from gateway.domain.programs.local_hours import day_parts
from gateway.domain.rules.calendar import midnight_ms
from gateway.domain.types import Bools

FORMAT = 1
LEVEL = 9
_HEAD = struct.Struct("<BBH")
_COUNT = struct.Struct("<H")
RUN = np.dtype([("start_s", "<u4"), ("length_s", "<u4"), ("count", "<u4"), ("revision", "<u4")])

Runs = npt.NDArray[np.void]
"""Rows of the type `RUN`."""

Energies = npt.NDArray[np.int32]
Percents = npt.NDArray[np.uint8]
Qualities = npt.NDArray[np.int16]


class SiteChannel(IntEnum):
    """What is counted of a site: what its grid reading takes in and gives out, and its batteries on the AC side."""

    IMPORT = 0
    EXPORT = 1
    CHARGE = 2
    DISCHARGE = 3


GRID = (SiteChannel.IMPORT, SiteChannel.EXPORT)
BATTERY = (SiteChannel.CHARGE, SiteChannel.DISCHARGE)


class SiteQuality(IntFlag):
    """Bits beside those of the interval records (`Quality`). `ABSENT`: no device was at the site; `MOVED`: one came or
    went within the interval, so that nobody knows its share; `COARSE`: a record is longer than the interval and cannot
    be divided; `GRID_DISAGREES`: two devices of the site read its grid differently."""

    ABSENT = 1 << 10
    MOVED = 1 << 11
    COARSE = 1 << 12
    GRID_DISAGREES = 1 << 13


NOT_OWED = SiteQuality.ABSENT | SiteQuality.MOVED


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DayFrame:
    """How days are divided: the time zone whose midnights bound them, and the length of an interval in s. Raises
    InvalidInput for a length that does not divide a day, or whose intervals midnight would cut."""

    zone: str
    length_s: int

    def __post_init__(self) -> None:
        if self.length_s <= 0 or 86_400 % self.length_s:
            raise InvalidInput([f"interval length {self.length_s} s: does not divide a day"])

    def span(self, day: date) -> tuple[int, int]:
        """Start and end of a local day, UTC ms. Raises InvalidInput where its midnight cuts an interval."""
        from_ms, until_ms = midnight_ms(self.zone, day), midnight_ms(self.zone, day + timedelta(days=1))
        if from_ms % (self.length_s * 1000) or until_ms % (self.length_s * 1000):
            raise InvalidInput([f"{self.zone}: midnight cuts an interval of {self.length_s} s on {day}"])
        return from_ms, until_ms

    def parts(self, day: date) -> int:
        """Intervals of a local day."""
        return day_parts(self.zone, day, self.length_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBasis:
    """The records of one device that a site-day rests on."""

    device: str
    runs: Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDays:
    """Sites on one local day. `energy_wh` (channel, site, interval) is 0 where it is not `known`; `coverage_pct` and
    `quality` (site, interval); `bases`: per site, encoded (see `basis`); `versions`: per site, 0 = not stored."""

    frame: DayFrame
    day: date
    sites: tuple[str, ...]
    energy_wh: Energies
    known: Bools
    coverage_pct: Percents
    quality: Qualities
    bases: tuple[bytes, ...]
    versions: tuple[int, ...]

    @property
    def from_ms(self) -> int:
        """Start of the day, UTC ms."""
        return self.frame.span(self.day)[0]

    @property
    def parts(self) -> int:
        """Intervals of the day."""
        return int(self.energy_wh.shape[2])

    @property
    def owed(self) -> Bools:
        """By site and interval, whether there should be data: a device was there from its start to its end."""
        found: Bools = (self.quality & np.int16(NOT_OWED)) == 0
        return found

    def complete(self, channels: Sequence[SiteChannel], coverage_min_pct: float) -> Bools:
        """By site and interval, whether these channels are known, and enough of it was measured."""
        found: Bools = self.known[list(channels)].all(axis=0) & (self.coverage_pct >= coverage_min_pct)
        return found

    def totals_wh(self) -> npt.NDArray[np.int64]:
        """The sum of what is known, by channel and site."""
        found: npt.NDArray[np.int64] = self.energy_wh.sum(axis=2, dtype=np.int64)
        return found

    def basis(self, site: int) -> list[DeviceBasis]:
        """The records that one site's day rests on."""
        return _read_basis(self.bases[site])

    def only(self, index: Sequence[int]) -> "SiteDays":
        """These sites alone."""
        at = np.array(index, dtype=np.int64)
        return replace(
            self, sites=tuple(self.sites[i] for i in index), energy_wh=self.energy_wh[:, at], known=self.known[:, at],
            coverage_pct=self.coverage_pct[at], quality=self.quality[at],
            bases=tuple(self.bases[i] for i in index), versions=tuple(self.versions[i] for i in index),
        )  # fmt: skip


def encode(days: SiteDays) -> list[bytes]:
    """Each site's day as bytes."""
    invariant(days.energy_wh.shape[:1] == (len(SiteChannel),), "a channel is missing")
    parts = days.parts
    largest = days.energy_wh.max(axis=(0, 2), initial=0)
    widths = np.where(largest < np.iinfo(np.uint16).max, 2, 4)
    bodies: list[bytes] = [b""] * len(days.sites)
    for width, dtype in ((2, "<u2"), (4, "<u4")):
        at = np.flatnonzero(widths == width)
        if not len(at):
            continue
        numbers = np.where(days.known[:, at], days.energy_wh[:, at], -1).astype(dtype)
        energy = _planes(numbers.transpose(1, 0, 2).reshape(len(at), -1))
        quality = _planes(days.quality[at].astype("<i2"))
        fixed = np.concatenate((energy, days.coverage_pct[at], quality), axis=1)
        for row, site in zip(fixed, at.tolist(), strict=True):
            body = zlib.compress(row.tobytes() + days.bases[site], LEVEL)
            bodies[site] = _HEAD.pack(FORMAT, width, parts) + body
    return bodies


def decode(
    frame: DayFrame, day: date, sites: Sequence[str], bodies: Sequence[bytes], versions: Sequence[int]
) -> SiteDays:
    """The inverse of `encode`, of all sites at once. Raises CorruptState."""
    parts, count = frame.parts(day), len(sites)
    energy_wh = np.zeros((len(SiteChannel), count, parts), dtype=np.int32)
    known = np.zeros(energy_wh.shape, dtype=np.bool_)
    coverage = np.zeros((count, parts), dtype=np.uint8)
    quality = np.zeros((count, parts), dtype=np.int16)
    bases: list[bytes] = [b""] * count
    by_width: dict[int, tuple[list[int], list[bytes]]] = {2: ([], []), 4: ([], [])}
    for at, body in enumerate(bodies):
        width, payload = _payload(body, parts, sites[at], day)
        fixed = (len(SiteChannel) * width + 3) * parts
        if len(payload) < fixed:
            raise CorruptState(f"site {sites[at]} on {day}: is cut off")
        by_width[width][0].append(at)
        by_width[width][1].append(payload[:fixed])
        bases[at] = payload[fixed:]
    for width, (index, payloads) in by_width.items():
        if not index:
            continue
        rows = np.frombuffer(b"".join(payloads), dtype=np.uint8).reshape(len(index), -1)
        size = len(SiteChannel) * parts
        numbers = _numbers(rows[:, : size * width], size, f"<u{width}").reshape(len(index), len(SiteChannel), parts)
        is_known = numbers != np.iinfo(numbers.dtype).max
        energy_wh[:, index] = np.where(is_known, numbers, 0).astype(np.int32).transpose(1, 0, 2)
        known[:, index] = is_known.transpose(1, 0, 2)
        coverage[index] = rows[:, size * width : size * width + parts]
        quality[index] = _numbers(rows[:, size * width + parts :], parts, "<i2")
    return SiteDays(
        frame=frame, day=day, sites=tuple(sites), energy_wh=energy_wh, known=known, coverage_pct=coverage,
        quality=quality, bases=tuple(bases), versions=tuple(versions),
    )  # fmt: skip


def same_content(one: bytes, other: bytes) -> bool:
    """Whether two site-days say the same, whatever compressed them. One that cannot be read is like no other."""
    if one == other:
        return True
    try:
        return one[: _HEAD.size] == other[: _HEAD.size] and (
            zlib.decompress(one[_HEAD.size :]) == zlib.decompress(other[_HEAD.size :])
        )
    except zlib.error:
        return False


def write_basis(devices: Sequence[DeviceBasis]) -> bytes:
    """The records that a site's day rests on, encoded; devices in the order of their ids."""
    parts = [_COUNT.pack(len(devices))]
    for one in sorted(devices, key=lambda basis: basis.device):
        name = one.device.encode()
        parts += [_COUNT.pack(len(name)), name, _COUNT.pack(len(one.runs)), one.runs.tobytes()]
    return b"".join(parts)


def _read_basis(text: bytes) -> list[DeviceBasis]:
    found, at = [], _COUNT.size
    for _ in range(_COUNT.unpack_from(text)[0]):
        (length,) = _COUNT.unpack_from(text, at)
        name = text[at + _COUNT.size : at + _COUNT.size + length].decode()
        at += _COUNT.size + length
        (count,) = _COUNT.unpack_from(text, at)
        at += _COUNT.size
        found.append(DeviceBasis(device=name, runs=np.frombuffer(text, dtype=RUN, count=count, offset=at)))
        at += count * RUN.itemsize
    return found


def _payload(body: bytes, parts: int, site: str, day: date) -> tuple[int, bytes]:
    try:
        form, width, count = _HEAD.unpack_from(body)
        if form != FORMAT or width not in (2, 4) or count != parts:
            raise CorruptState(
                f"site {site} on {day}: format {form}, width {width}, {count} intervals; {parts} are due"
            )
        return width, zlib.decompress(body[_HEAD.size :])
    except (struct.error, zlib.error) as error:
        raise CorruptState(f"site {site} on {day}: {error}") from error


def _planes(numbers: np.ndarray) -> Percents:
    """Rows of numbers as rows of bytes: first the lowest byte of each, then the next one."""
    rows, count = numbers.shape
    width = numbers.dtype.itemsize
    planes = np.ascontiguousarray(numbers).view(np.uint8).reshape(rows, count, width).transpose(0, 2, 1)
    return planes.reshape(rows, count * width)


def _numbers(planes: np.ndarray, count: int, dtype: str) -> np.ndarray:
    """The inverse of `_planes`."""
    width = np.dtype(dtype).itemsize
    whole = planes.reshape(len(planes), width, count).transpose(0, 2, 1)
    return np.ascontiguousarray(whole).view(dtype).reshape(len(planes), count)
