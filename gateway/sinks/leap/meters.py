"""Maps devices to the aggregator's meters: a CSV file `device,meter_id[,region]`, read again when it changes.

UTF-8, a header, one line per device; a meter has one device and a device one meter. A meter is a UUID, in small letters
from here on. The reader refuses a file with any
fault and keeps the one before in force. Put a new one in place by renaming it: half of a file can be without fault.
"""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.domain.errors import InvalidInput
from gateway.domain.types import DeviceId
from gateway.sinks.leap.rows import LENGTH_S, STATES, UUID, LeapMeter

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 32 << 20
CHECK_MS = 5_000
PROBLEMS_MAX = 20
_HEADERS = (["device", "meter_id"], ["device", "meter_id", "region"])


def read_meters(text: str) -> dict[DeviceId, LeapMeter]:
    """The meters by device. Raises InvalidInput with the first faults, each with its line."""
    problems: list[str] = []
    found: dict[DeviceId, LeapMeter] = {}
    device_of: dict[str, DeviceId] = {}
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if next(lines, None) not in _HEADERS:
            raise InvalidInput(["line 1: not the header device,meter_id[,region]"])
        for fields in lines:
            if not 2 <= len(fields) <= 3:
                problems.append(f"line {lines.line_num}: not a device, a meter and perhaps a region")
                continue
            device, meter = (
                DeviceId(fields[0]),
                LeapMeter(id=fields[1].lower(), region=fields[2] if len(fields) == 3 else ""),
            )
            wrong = _wrong(device, meter)
            if wrong is None and (device in found or meter.id in device_of):
                wrong = f"{device if device in found else meter.id!r} was named before"
            if wrong is not None:
                problems.append(f"line {lines.line_num}: {wrong}")
            found[device] = meter
            device_of[meter.id] = device
    except csv.Error as error:
        problems.append(f"line {lines.line_num}: {error}")
    if not found and not problems:
        problems.append("no meter")
    if problems:
        raise InvalidInput(problems[:PROBLEMS_MAX])
    return found


def _wrong(device: str, meter: LeapMeter) -> str | None:
    if not device:
        return "no device"
    if not UUID.fullmatch(meter.id):
        return f"not a meter, which is a UUID: {meter.id!r}"
    if meter.region and meter.region not in STATES:
        return f"not a state of the US: {meter.region!r}"
    return None


class MeterFile:
    """The newest good content of the file. `failing`: why the newest content is not in force; `other_length`: devices
    with a meter whose newest record is not of 15 minutes."""

    def __init__(self, path: Path) -> None:
        self.failing: str | None = None
        self.other_length: set[DeviceId] = set()
        self._path = path
        self._meters: Mapping[DeviceId, LeapMeter] | None = None
        self._seen: tuple[int, int, int] | None = None
        self._check_ms: int | None = None

    @property
    def newest(self) -> Mapping[DeviceId, LeapMeter] | None:
        """The meters by device as they were read last, None if there was no good file yet."""
        return self._meters

    @property
    def count(self) -> int:
        return 0 if self._meters is None else len(self._meters)

    def wants(self, device: DeviceId, length_s: int) -> bool:
        """Whether a record is of 15 minutes and its device has a meter (any may, while no meters are known)."""
        meters = self._meters
        return length_s == LENGTH_S and (meters is None or device in meters)

    def pick(self, devices: Sequence[DeviceId], lengths_s: Sequence[int]) -> list[bool]:
        """Which of these records it wants, the newest last; notes whose length is another."""
        meters = self._meters
        if meters is not None:
            lengths = zip(devices, lengths_s, strict=True)
            other = {device: length_s != LENGTH_S for device, length_s in lengths if device in meters}
            self.other_length -= other.keys()
            self.other_length |= {device for device, is_other in other.items() if is_other}
        return [self.wants(device, length_s) for device, length_s in zip(devices, lengths_s, strict=True)]

    def current(self, mono_ms: int) -> Mapping[DeviceId, LeapMeter] | None:
        """The meters by device, None if there was no good file yet. Checks the file every few seconds."""
        if self._check_ms is None or mono_ms >= self._check_ms:
            self._check_ms = mono_ms + CHECK_MS
            self._check()
        return self._meters

    def _check(self) -> None:
        try:
            stat = self._path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            if stat.st_size > FILE_BYTES_MAX:
                raise InvalidInput([f"larger than {FILE_BYTES_MAX} bytes"])
            self._meters = read_meters(self._path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, InvalidInput) as error:
            self._fail(str(error))
            return
        self.failing = None
        log.info("read the aggregator's meters", extra={"path": str(self._path), "meters": len(self._meters)})

    def _fail(self, error: str) -> None:
        if self.failing != error:
            log.error("the aggregator's meters cannot be read", extra={"path": str(self._path), "error": error})
        self.failing = error
