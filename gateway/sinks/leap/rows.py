"""Writes interval records as the aggregator's CSV of 15-minute energy, and checks it before it is sent.

One header, one line per meter and interval, sorted by both, LF at the end of each:

    meter_id,interval_start_time_utc,interval_end_time_utc,energy_generated_kwh,energy_consumed_kwh[,region][,final]

Times are `YYYY-MM-DDTHH:MM:SSZ` and nothing else. Generated = discharge, consumed = charge, both on the AC side in kWh
with six decimals; an unknown energy is an empty field, never 0. The same rows are the same bytes in whatever order they
came. `energy_net_kwh` is written only as the aggregator has confirmed it: the sign of that column is not public. Files
of others may have the columns in any order, the net column instead of the pair or beside it, quoted fields and CRLF; a
field has no line break.

The codes and their meanings are those that the aggregator publishes (`CODES`); REPEATED is ours, since it has none for
a meter and start that a file names twice. The format of the times and the order of the columns are not public: ours
are those of its example.
"""

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId
from gateway.schemas.interval_rows import rfc3339

LENGTH_S = 900
ZERO, MINUS_ZERO = "0.000000", "-0.000000"
LENGTH_MS = LENGTH_S * 1000
FIRST_ROW_LINE = 2
LINE_CHARS_MAX = 4096
CODES: Mapping[str, str] = {
    "LIN_0001": "the line is too short for the columns, or cannot be split into them",
    "MTR_0001": "the column of the meter is absent",
    "MTR_0002": "the meter is not a UUID",
    "MTR_0003": "the meter is not known",
    "STM_0001": "no start",
    "STM_0002": "the start is not a UTC time",
    "STM_0003": "the start is not on a quarter of an hour, or in the future",
    "ETM_0001": "no end",
    "ETM_0002": "the end is not a UTC time",
    "ETM_0003": "the end is not on a quarter of an hour, or in the future",
    "DTR_0003": "the end is not 15 minutes after the start",
    "GEN_0002": "generated energy is not a number",
    "GEN_0003": "generated energy is negative",
    "CON_0002": "consumed energy is not a number",
    "CON_0003": "consumed energy is negative",
    "NET_0002": "net energy is not a number",
    "NRG_0001": "neither net energy nor the pair of generated and consumed, or half of the pair",
    "NRG_0003": "net energy contradicts the pair",
    "REG_0002": "the region is not two capital letters",
    "REG_0003": "the region is not a state of the US",
    "FNL_0002": "final is neither true nor false",
    "REPEATED": "an earlier line has this meter and start",
}
FUTURE_CODES = frozenset({"STM_0003", "ETM_0003"})
"""Said of a line on the quarters of an hour, they mean that the receiver's clock is behind ours."""
METER, START, END = "meter_id", "interval_start_time_utc", "interval_end_time_utc"
GENERATED, CONSUMED, NET = "energy_generated_kwh", "energy_consumed_kwh", "energy_net_kwh"
REGION, FINAL = "region", "final"
COLUMNS = (METER, START, END, GENERATED, CONSUMED, NET, REGION, FINAL)
_STATES_TEXT = """
AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI
SC SD TN TX UT VT VA WA WV WI WY
"""
STATES = frozenset(_STATES_TEXT.split())
# The sign of net energy is not documented: it contradicts the pair only if it does so either way round.
NET_TOLERANCE_KWH = Decimal("0.0000015")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z", re.ASCII)
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_REGION = re.compile(r"[A-Z]{2}", re.ASCII)
_REGIONS_FINE = STATES | {""}
_FINALS_FINE = frozenset({"", "true", "false"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapMeter:
    """A meter of the aggregator. `region`: a US state, "" = not given."""

    id: str
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetColumn:
    """How net energy is written: `only` = without generated and consumed; `generation` = positive where more is
    generated than consumed."""

    only: bool
    generation: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return (NET,) if self.only else (GENERATED, CONSUMED, NET)

    def fields(self, generated: str, consumed: str) -> str:
        """The energy fields of a line, from kWh as text; net is unknown if one of them is."""
        net = ""
        if generated and consumed:
            kwh = Decimal(generated) - Decimal(consumed)
            net = f"{(kwh if self.generation else -kwh) + 0:.6f}"
        return net if self.only else f"{generated},{consumed},{net}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of a line, in the aggregator's codes. `column` is "" where the whole line is wrong."""

    line: int
    column: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file to send. `lines[i]`, line `i + FIRST_ROW_LINE` of the file, is the row at `positions[i]`."""

    header: str
    lines: Sequence[str]
    positions: Sequence[int]

    @classmethod
    def read(cls, body: bytes) -> "Document":
        """A file that was written by `body`; its rows stand in the order of its lines."""
        header, *lines = body.decode().split("\n")[:-1]
        return cls(header=header, lines=lines, positions=range(len(lines)))

    def body(self) -> bytes:
        return "\n".join((self.header, *self.lines, "")).encode()

    def part(self, begin: int, end: int) -> "Document":
        """The same file with only the rows of these lines (`end` excluded), counted from 0."""
        return Document(header=self.header, lines=self.lines[begin:end], positions=self.positions[begin:end])

    def without(self, positions: Collection[int]) -> "Document":
        """The same file without these rows."""
        kept = [i for i, position in enumerate(self.positions) if position not in positions]
        return Document(
            header=self.header,
            lines=[self.lines[i] for i in kept],
            positions=[self.positions[i] for i in kept],
        )


def render(
    rows: Sequence[IntervalRecord],
    positions: Sequence[int],
    meters: Mapping[DeviceId, LeapMeter],
    *,
    final: bool | None = None,
    net: NetColumn | None = None,
) -> Document:
    """The file of `rows` at `positions`, of devices with a meter. `final`: that column's value, None = no column;
    `net`: what is written of net energy, None = no column."""
    regional = any(meter.region for meter in meters.values())
    tail = "" if final is None else f",{str(final).lower()}"
    times: dict[tuple[int, int], str] = {}
    lines: list[str] = []
    for position in positions:
        row = rows[position]
        meter = meters[row.device]
        span = (row.start_ms, row.length_s)
        when = times.get(span)
        if when is None:
            when = times[span] = f",{rfc3339(row.start_ms)},{rfc3339(row.start_ms + row.length_s * 1000)},"
        discharge_wh, charge_wh = row.discharge_wh, row.charge_wh
        generated = "" if discharge_wh is None else f"{discharge_wh / 1000:.6f}"
        consumed = "" if charge_wh is None else f"{charge_wh / 1000:.6f}"
        if generated == MINUS_ZERO:
            generated = ZERO
        if consumed == MINUS_ZERO:
            consumed = ZERO
        region = f",{meter.region}" if regional else ""
        energy = f"{generated},{consumed}" if net is None else net.fields(generated, consumed)
        lines.append(f"{meter.id}{when}{energy}{region}{tail}")
    order = sorted(range(len(lines)), key=lines.__getitem__)
    header = ",".join((METER, START, END, *((GENERATED, CONSUMED) if net is None else net.columns)))
    header += f",{REGION}" if regional else ""
    header += "" if final is None else f",{FINAL}"
    return Document(header=header, lines=[lines[i] for i in order], positions=[positions[i] for i in order])


def validate(body: bytes, *, meters: Collection[str], now_ms: int, fast: bool = True) -> list[Fault]:
    """Every fault of a file, by line and in the order of `CODES`; none = it can be sent.

    A line that cannot be split into fields has LIN_0001 and no other fault. A faultless line claims its meter and
    start; a later line with both is a repetition. A fault of the header is reported alone. `fast=False` checks every
    line the slow way, with the same result.
    """
    lines = body.decode("utf-8", errors="surrogateescape").replace("\r\n", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    names = _fields(lines[0]) if lines else None
    if names is None:
        return [_fault(1, "", "LIN_0001")]
    faults = _header_faults(names)
    if faults:
        return faults
    check = _RowCheck(names, meters, now_ms)
    del lines[0]
    if fast and NET not in names and GENERATED in names and CONSUMED in names:
        return check.most_are_right(lines)
    return [fault for number, line in enumerate(lines, FIRST_ROW_LINE) for fault in check.faults(number, line)]


def _fault(line: int, column: str, code: str) -> Fault:
    return Fault(line=line, column=column, code=code, message=CODES[code])


def _fields(line: str) -> list[str] | None:
    """The fields of a line, None if it cannot be split into fields."""
    if not line or len(line) > LINE_CHARS_MAX or "\r" in line:
        return None
    try:
        line.encode()
        if '"' not in line:
            return line.split(",")
        return next(csv.reader([line], strict=True))
    except (UnicodeEncodeError, csv.Error):
        return None


def _header_faults(names: Sequence[str]) -> list[Fault]:
    faults = [_fault(1, name, "LIN_0001") for i, name in enumerate(names) if name not in COLUMNS or name in names[:i]]
    needed = ((METER, "MTR_0001"), (START, "STM_0001"), (END, "ETM_0001"))
    faults += [_fault(1, name, code) for name, code in needed if name not in names]
    if faults:
        return faults
    if NET not in names and not {GENERATED, CONSUMED} <= set(names):
        return [_fault(1, "", "NRG_0001")]
    return []


def _time_ms(text: str) -> int | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return round(moment.timestamp()) * 1000


def _is_number(text: str) -> bool:
    """Digits with at most one point, after at most one minus."""
    digits = text.removeprefix("-").replace(".", "", 1)
    return digits.isascii() and digits.isdigit()


class _RowCheck:
    """Checks the lines of one file in order."""

    def __init__(self, names: Sequence[str], meters: Collection[str], now_ms: int) -> None:
        self._names = names
        self._now_ms = now_ms
        # A line without quotes cannot name a meter whose id needs quotes.
        self._known = {meter: i for i, meter in enumerate(meters) if '"' not in meter}
        self._claimed: dict[str, tuple[str, set[int]]] = {}

    def most_are_right(self, lines: Sequence[str]) -> list[Fault]:
        """The same as `faults` of every line, but faster. A line that is not plainly right (also the first of each
        start) goes through `faults`."""
        names, known, claimed = self._names, self._known, self._claimed
        width = len(names)
        meter, start, end, generated, consumed = map(names.index, (METER, START, END, GENERATED, CONSUMED))
        region = names.index(REGION) if REGION in names else None
        final = names.index(FINAL) if FINAL in names else None
        faults: list[Fault] = []
        for number, line in enumerate(lines, FIRST_ROW_LINE):
            fields = line.split(",")
            if len(fields) == width and line.isascii() and len(line) <= LINE_CHARS_MAX:
                which = known.get(fields[meter])
                due = claimed.get(fields[start])
                if (
                    which is not None
                    and due is not None
                    and due[0] == fields[end]
                    and fields[generated].replace(".", "", 1).isdigit()
                    and fields[consumed].replace(".", "", 1).isdigit()
                    and which not in due[1]
                    and (region is None or fields[region] in _REGIONS_FINE)
                    and (final is None or fields[final] in _FINALS_FINE)
                ):
                    due[1].add(which)
                    continue
            faults += self.faults(number, line)
        return faults

    def faults(self, number: int, line: str) -> list[Fault]:
        """The faults of one line."""
        fields = _fields(line)
        if fields is None or len(fields) != len(self._names):
            return [_fault(number, "", "LIN_0001")]
        row = dict(zip(self._names, fields, strict=True))
        found = self._meter(row[METER]) + self._times(row[START], row[END])
        found += _energy(row.get(GENERATED, ""), row.get(CONSUMED, ""), row.get(NET, ""))
        found += _extras(row.get(REGION, ""), row.get(FINAL, ""))
        if not found:
            found = self._claim(row)
        return [_fault(number, column, code) for column, code in found]

    def _meter(self, meter: str) -> list[tuple[str, str]]:
        if meter in self._known:
            return []
        return [(METER, "MTR_0003" if UUID.fullmatch(meter) else "MTR_0002")]

    def _times(self, start: str, end: str) -> list[tuple[str, str]]:
        start_ms, end_ms = _time_ms(start), _time_ms(end)
        found: list[tuple[str, str]] = []
        if start_ms is None:
            found.append((START, "STM_0002" if start else "STM_0001"))
        elif start_ms % LENGTH_MS or start_ms > self._now_ms:
            found.append((START, "STM_0003"))
        if end_ms is None:
            found.append((END, "ETM_0002" if end else "ETM_0001"))
        elif end_ms % LENGTH_MS or end_ms > self._now_ms:
            found.append((END, "ETM_0003"))
        if start_ms is not None and end_ms is not None and end_ms - start_ms != LENGTH_MS:
            found.append((END, "DTR_0003"))
        return found

    def _claim(self, row: Mapping[str, str]) -> list[tuple[str, str]]:
        _, meters = self._claimed.setdefault(row[START], (row[END], set()))
        which = self._known[row[METER]]
        if which in meters:
            return [(START, "REPEATED")]
        meters.add(which)
        return []


def _energy(generated: str, consumed: str, net: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for column, text, code in ((GENERATED, generated, "GEN"), (CONSUMED, consumed, "CON")):
        if text and not _is_number(text):
            found.append((column, f"{code}_0002"))
        elif text and float(text) < 0:
            found.append((column, f"{code}_0003"))
    if net and not _is_number(net):
        found.append((NET, "NET_0002"))
    if bool(generated) != bool(consumed) or not (net or generated):
        found.append(("", "NRG_0001"))
    if not found and net and generated:
        off_kwh = abs(Decimal(net)) - abs(Decimal(generated) - Decimal(consumed))
        if abs(off_kwh) > NET_TOLERANCE_KWH:
            found.append((NET, "NRG_0003"))
    return found


def _extras(region: str, final: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if region not in _REGIONS_FINE:
        found.append((REGION, "REG_0003" if _REGION.fullmatch(region) else "REG_0002"))
    if final not in _FINALS_FINE:
        found.append((FINAL, "FNL_0002"))
    return found
