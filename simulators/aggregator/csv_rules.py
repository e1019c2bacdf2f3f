"""What an interval file must look like: the published error codes of the aggregator, each with the check that earns it.

A file is UTF-8 CSV with a header; columns by name, in any order:

    meter_id,interval_start_time_utc,interval_end_time_utc,energy_net_kwh,energy_consumed_kwh,energy_generated_kwh,final,region

A row is one meter's quarter hour: 15 minutes on quarter hours of UTC, over by the server's clock; energy as net, or as
generated and consumed, or as all three without contradiction. `final` and `region` (a US state) may be left out.

Not public, hence a choice of this fake [?]: the time format (RFC 3339 with Z or +00:00), whether a time without zone or
an exponent counts (switches, default no), the sign of net (switch), that `final` is `true` or `false`, that a region
is two capital letters, that a blank value is an absent one, that a wrong header is reported once and on its own line,
and that bytes which are no UTF-8 CSV, or a known column twice, are UNCATEGORISED. No code exists for a repeated quarter
hour, an unknown column or a line that is too long: all three pass.
"""

import csv
import io
import math
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

QUARTER_MS = 900_000
METER, START, END = "meter_id", "interval_start_time_utc", "interval_end_time_utc"
NET, CONSUMED, GENERATED = "energy_net_kwh", "energy_consumed_kwh", "energy_generated_kwh"
FINAL, REGION = "final", "region"
COLUMNS = (METER, START, END, NET, CONSUMED, GENERATED, FINAL, REGION)
STATES = frozenset((
    "AL", "AK", "AZ", "AR", "CA", "CO", "CT", "DC", "DE", "FL", "GA", "HI", "ID", "IL", "IN", "IA", "KS",
    "KY", "LA", "ME", "MD", "MA", "MI", "MN", "MS", "MO", "MT", "NE", "NV", "NH", "NJ", "NM", "NY", "NC",
    "ND", "OH", "OK", "OR", "PA", "RI", "SC", "SD", "TN", "TX", "UT", "VT", "VA", "WA", "WV", "WI", "WY",
))  # fmt: skip
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|\+00:00)?", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Code(StrEnum):
    """The published codes, in full."""

    UNCATEGORISED = "UNCATEGORISED"
    LIN_0001 = "LIN_0001"
    MTR_0001 = "MTR_0001"
    MTR_0002 = "MTR_0002"
    MTR_0003 = "MTR_0003"
    STM_0001 = "STM_0001"
    STM_0002 = "STM_0002"
    STM_0003 = "STM_0003"
    ETM_0001 = "ETM_0001"
    ETM_0002 = "ETM_0002"
    ETM_0003 = "ETM_0003"
    DTR_0003 = "DTR_0003"
    GEN_0002 = "GEN_0002"
    GEN_0003 = "GEN_0003"
    CON_0002 = "CON_0002"
    CON_0003 = "CON_0003"
    NET_0002 = "NET_0002"
    NRG_0001 = "NRG_0001"
    NRG_0003 = "NRG_0003"
    REG_0002 = "REG_0002"
    REG_0003 = "REG_0003"
    FNL_0002 = "FNL_0002"


class LineError(NamedTuple):
    """One error of one line; `column` where it is about one."""

    line: int
    code: str
    message: str
    column: str | None = None


class Row(NamedTuple):
    """One accepted quarter hour; None = the file left it out."""

    meter: str
    start_ms: int
    net_kwh: float | None
    consumed_kwh: float | None
    generated_kwh: float | None
    final: bool | None
    region: str | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a file is judged by. Meters in lower case; `now_ms` by the server's clock."""

    meters: Container[str]
    now_ms: int
    header_is_line_1: bool = True
    net_is_consumed_less_generated: bool = True
    net_tolerance_kwh: float = 1e-9
    naive_times: bool = False
    exponents: bool = False


@dataclass(slots=True, kw_only=True)
class Judgement:
    """Good rows and errors in the order of the file; `parsed` = the header could be read."""

    rows: list[Row] = field(default_factory=list)
    errors: list[LineError] = field(default_factory=list)
    parsed: bool = False


def judge(content: bytes, rules: Rules) -> Judgement:
    """Judge a whole file."""
    judgement = Judgement()
    offset = 0 if rules.header_is_line_1 else 1
    text, readable = _text(content)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        header = next(reader, [])
        if header or readable:
            judgement.errors += _header_errors(header, line - offset)
            judgement.parsed = not judgement.errors
        line = reader.line_num + 1
        if judgement.parsed:
            lines = _Lines(header, rules)
            for fields in reader:
                judgement.errors += lines.take(fields, line - offset, judgement.rows) or ()
                line = reader.line_num + 1
    except csv.Error as error:
        judgement.errors.append(LineError(line - offset, Code.UNCATEGORISED, f"line cannot be read: {error}"))
    else:
        if not readable:
            judgement.errors.append(LineError(line - offset, Code.UNCATEGORISED, "line is not UTF-8"))
    return judgement


def _text(content: bytes) -> tuple[str, bool]:
    """The text, up to the first line that is no UTF-8; whether that is all of it."""
    try:
        return content.decode("utf-8-sig"), True
    except UnicodeDecodeError as error:
        good = content[: error.start]
        return good[: good.rfind(b"\n") + 1].decode("utf-8-sig"), False


def _header_errors(header: list[str], line: int) -> Iterator[LineError]:
    for name, code in ((METER, Code.MTR_0001), (START, Code.STM_0001), (END, Code.ETM_0001)):
        if name not in header:
            yield LineError(line, code, f"column {name} is absent", name)
    if NET not in header and not {GENERATED, CONSUMED} <= set(header):
        yield LineError(line, Code.NRG_0001, "no right set of energy columns")
    for name in COLUMNS:
        if header.count(name) > 1:
            yield LineError(line, Code.UNCATEGORISED, f"column {name} comes more than once", name)


class _Lines:
    """Judges lines one after another; times repeat in a file, so each text is parsed once."""

    def __init__(self, header: list[str], rules: Rules) -> None:
        self._rules = rules
        self._width = len(header)
        # A column that is absent points at a blank that is appended to each line.
        self._at = tuple(header.index(name) if name in header else -1 for name in COLUMNS)
        self._times: dict[str, int | None] = {"": None}

    def take(self, fields: list[str], line: int, rows: list[Row]) -> list[LineError] | None:
        """Append the row of a good line; the errors of another."""
        if len(fields) < self._width:
            return [LineError(line, Code.LIN_0001, f"{len(fields)} values for {self._width} columns")]
        fields.append("")
        at = self._at
        meter, start, end = fields[at[0]], fields[at[1]], fields[at[2]]
        errors: list[LineError] = []
        meter_id = meter.lower()
        if meter_id not in self._rules.meters or not UUID.fullmatch(meter):
            code, what = (Code.MTR_0003, "is unknown") if UUID.fullmatch(meter) else (Code.MTR_0002, "is no UUID")
            errors.append(LineError(line, code, f"meter {meter!r} {what}", METER))
        start_ms = self._edge(start, line, START, (Code.STM_0001, Code.STM_0002, Code.STM_0003), errors)
        end_ms = self._edge(end, line, END, (Code.ETM_0001, Code.ETM_0002, Code.ETM_0003), errors)
        if start_ms is not None and end_ms is not None and end_ms - start_ms != QUARTER_MS:
            errors.append(LineError(line, Code.DTR_0003, "interval is not 15 minutes"))
        net, consumed, generated = self._energies((fields[at[3]], fields[at[4]], fields[at[5]]), line, errors)
        final, region = fields[at[6]], fields[at[7]]
        if final or region:
            errors += _label_errors(final, region, line)
        if errors or start_ms is None:
            return errors
        rows.append(
            Row(meter_id, start_ms, net, consumed, generated, final == "true" if final else None, region or None, line)
        )
        return None

    def _edge(
        self, text: str, line: int, column: str, codes: tuple[Code, Code, Code], errors: list[LineError]
    ) -> int | None:
        if text not in self._times:
            self._times[text] = _time_ms(text, naive=self._rules.naive_times)
        time_ms = self._times[text]
        if time_ms is None:
            code, what = (codes[1], f"{text!r} is no time") if text else (codes[0], "time is absent")
            errors.append(LineError(line, code, what, column))
        elif time_ms % QUARTER_MS:
            errors.append(LineError(line, codes[2], f"{text!r} is not on a quarter hour", column))
        elif time_ms > self._rules.now_ms:
            errors.append(LineError(line, codes[2], f"{text!r} is in the future", column))
        return time_ms

    def _energies(
        self, texts: tuple[str, str, str], line: int, errors: list[LineError]
    ) -> tuple[float | None, float | None, float | None]:
        net_text, consumed_text, generated_text = texts
        net = self._energy(net_text, line, NET, Code.NET_0002, None, errors) if net_text else None
        consumed = (
            self._energy(consumed_text, line, CONSUMED, Code.CON_0002, Code.CON_0003, errors) if consumed_text else None
        )
        generated = (
            self._energy(generated_text, line, GENERATED, Code.GEN_0002, Code.GEN_0003, errors)
            if generated_text
            else None
        )
        # Both of the pair or none, and where none is there net.
        if bool(consumed_text) != bool(generated_text) or not (net_text or consumed_text):
            errors.append(LineError(line, Code.NRG_0001, "energy must be net, generated and consumed, or all three"))
        if net is not None and consumed is not None and generated is not None:
            want = consumed - generated if self._rules.net_is_consumed_less_generated else generated - consumed
            if abs(net - want) > self._rules.net_tolerance_kwh:
                errors.append(LineError(line, Code.NRG_0003, f"net is {net}, the others make {want}"))
        return net, consumed, generated

    def _energy(
        self, text: str, line: int, column: str, no_number: Code, negative: Code | None, errors: list[LineError]
    ) -> float | None:
        match = NUMBER.fullmatch(text)
        value = float(text) if match and (self._rules.exponents or match[3] is None) else math.nan
        if not math.isfinite(value):
            errors.append(LineError(line, no_number, f"{text!r} is no number", column))
            return None
        if negative is not None and value < 0:
            errors.append(LineError(line, negative, f"{text!r} is negative", column))
        return value


def _label_errors(final: str, region: str, line: int) -> Iterator[LineError]:
    if final not in ("", "true", "false"):
        yield LineError(line, Code.FNL_0002, f"{final!r} is neither true nor false", FINAL)
    if region and not (len(region) == 2 and region.isascii() and region.isalpha() and region.isupper()):
        yield LineError(line, Code.REG_0002, f"{region!r} is no two-letter code", REGION)
    elif region and region not in STATES:
        yield LineError(line, Code.REG_0003, f"{region!r} is no state", REGION)


def _time_ms(text: str, *, naive: bool) -> int | None:
    """UTC epoch ms, None for what is no time; a part of a ms counts as a whole one."""
    match = TIME.fullmatch(text)
    if match is None or (match[3] is None and not naive):
        return None
    try:
        whole_s = int(datetime.fromisoformat(match[1]).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None
    return whole_s * 1000 + math.ceil(float(f"0.{match[2] or 0}") * 1000)


def errors_csv(errors: list[LineError]) -> bytes:
    """The file of errors; its format is not public [?]: line,column,code,message."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("line", "column", "code", "message"))
    writer.writerows((error.line, error.column or "", error.code, error.message) for error in errors)
    return text.getvalue().encode()
