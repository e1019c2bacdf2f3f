"""How the stand-in of the aggregator judges a file of 15-minute energy.

What is public: the columns; exactly 15 minutes, clock-aligned, UTC, not in the future, kWh; generated and consumed
never negative; conflicting energy columns are rejected; the names of the codes and that DTR_0003 is "not 15 minutes".
What each other code means is not public. Read here as: 1 = missing, 2 = malformed, 3 = not allowed; LIN = the line
itself, NRG = what the energy columns say together (3 also for a line that repeats a meter and start). The header is
line 1. Only lines without fault are taken, and only they make a later line a repetition.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

NEEDED = ("meter_id", "interval_start_time_utc", "interval_end_time_utc")
PAIR = ("energy_generated_kwh", "energy_consumed_kwh")
NET = "energy_net_kwh"
OPTIONAL = ("region", "final")
LINE_MAX = 4096
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - everything here is UTC
QUARTER = timedelta(minutes=15)
UUID = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\Z")
STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)\Z")
USA = """
CA OR WA NV AZ UT ID MT WY CO NM TX OK KS NE SD ND MN IA MO AR LA MS AL GA FL SC NC TN KY VA WV MD DE DC PA NJ NY CT RI
MA VT NH ME OH MI IN IL WI AK HI
"""
REGIONS = set(USA.split())
AGREED = Decimal("0.0000015")
"""How far net may be off generated less consumed, kWh, whichever sign it is meant in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenRow:
    """A line that was taken: energies in kWh, None where the file tells net only."""

    meter: str
    start_ms: int
    generated_kwh: Decimal | None
    consumed_kwh: Decimal | None
    net_kwh: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineError:
    """One error as the job tells it."""

    line: int
    column: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is wrong with a file, and what is right in it (by line)."""

    errors: tuple[LineError, ...]
    rows: dict[int, TakenRow]


def cut(raw: bytes) -> list[str] | None:
    """The fields of a line: quotes enclose a field or are a part of it, a doubled one within them stands for itself."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not text or len(text) > LINE_MAX or "\r" in text:
        return None
    fields: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            field, at = "", at + 1
            while True:
                close = text.find('"', at)
                if close < 0:
                    return None
                field += text[at:close]
                at = close + 1
                if not text.startswith('"', at):
                    break
                field, at = field + '"', at + 1
            if at < len(text) and text[at] != ",":
                return None
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            field, at = text[at:end], end
        fields.append(field)
        if at >= len(text):
            return fields
        at += 1


def judge(body: bytes, *, meters: Collection[str], now_ms: int) -> Judgement:
    """Judge a file line by line."""
    lines = re.split(rb"\r?\n", body)
    if lines[-1] == b"":
        lines.pop()
    header = cut(lines[0]) if lines else None
    if header is None:
        return Judgement(errors=(LineError(line=1, column="", code="LIN_0001"),), rows={})
    errors = _judge_header(header)
    rows: dict[int, TakenRow] = {}
    seen: set[tuple[str, int]] = set()
    for number, raw in enumerate(lines[1:] if not errors else [], 2):
        fields = cut(raw)
        if fields is None or len(fields) != len(header):
            errors.append(LineError(line=number, column="", code="LIN_0001"))
            continue
        line = dict.fromkeys((*NEEDED, *PAIR, NET, *OPTIONAL), "") | dict(zip(header, fields, strict=True))
        wrong, row = _judge_line(line, meters, now_ms)
        if row is not None and (row.meter, row.start_ms) in seen:
            wrong, row = [(NEEDED[1], "NRG_0003")], None
        errors += [LineError(line=number, column=column, code=code) for column, code in wrong]
        if row is not None:
            seen.add((row.meter, row.start_ms))
            rows[number] = row
    return Judgement(errors=tuple(errors), rows=rows)


def _judge_header(header: list[str]) -> list[LineError]:
    odd = [
        name
        for at, name in enumerate(header)
        if header.index(name) < at or name not in {*NEEDED, *PAIR, NET, *OPTIONAL}
    ]
    odd += [name for name in NEEDED if name not in header]
    if odd:
        return [LineError(line=1, column=name, code="LIN_0001") for name in odd]
    if NET in header or (PAIR[0] in header and PAIR[1] in header):
        return []
    return [LineError(line=1, column="", code="NRG_0001")]


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ") if STAMP.match(text) else None  # noqa: DTZ007
    except ValueError:
        return None


def _judge_line(
    line: dict[str, str], meters: Collection[str], now_ms: int
) -> tuple[list[tuple[str, str]], TakenRow | None]:
    wrong: list[tuple[str, str]] = []
    meter, start_text, end_text = (line[name] for name in NEEDED)
    if meter == "":
        wrong.append((NEEDED[0], "MTR_0001"))
    elif meter not in meters:
        wrong.append((NEEDED[0], "MTR_0003" if UUID.match(meter) else "MTR_0002"))
    start, end = _moment(start_text), _moment(end_text)
    if start is None:
        wrong.append((NEEDED[1], "STM_0001" if start_text == "" else "STM_0002"))
    elif (start.minute % 15, start.second) != (0, 0):
        wrong.append((NEEDED[1], "STM_0003"))
    if end is None:
        wrong.append((NEEDED[2], "ETM_0001" if end_text == "" else "ETM_0002"))
    elif (end - EPOCH) / timedelta(milliseconds=1) > now_ms:
        wrong.append((NEEDED[2], "ETM_0003"))
    if start is not None and end is not None and end - start != QUARTER:
        wrong.append((NEEDED[2], "DTR_0003"))
    wrong += _judge_energy(line)
    if line["region"] and line["region"] not in REGIONS:
        two = re.match(r"[A-Z][A-Z]\Z", line["region"])
        wrong.append(("region", "REG_0003" if two else "REG_0002"))
    if line["final"] not in ("", "true", "false"):
        wrong.append(("final", "FNL_0002"))
    if wrong or start is None:
        return wrong, None
    kwh = {name: Decimal(line[name]) if line[name] else None for name in (*PAIR, NET)}
    row = TakenRow(
        meter=meter, start_ms=(start - EPOCH) // timedelta(milliseconds=1), generated_kwh=kwh[PAIR[0]],
        consumed_kwh=kwh[PAIR[1]], net_kwh=kwh[NET],
    )  # fmt: skip
    return [], row


def _judge_energy(line: dict[str, str]) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    told: dict[str, Decimal] = {}
    for name, code in zip((*PAIR, NET), ("GEN", "CON", "NET"), strict=True):
        text = line[name]
        if NUMBER.match(text):
            told[name] = Decimal(text)
            if name != NET and told[name] < 0:
                wrong.append((name, f"{code}_0003"))
        elif text:
            wrong.append((name, f"{code}_0002"))
    given = [name for name in (*PAIR, NET) if line[name]]
    if not given or len({*PAIR} & {*given}) == 1:
        wrong.append(("", "NRG_0001"))
    if not wrong and len(told) == 3:
        difference = told[PAIR[0]] - told[PAIR[1]]
        if min(abs(told[NET] - difference), abs(told[NET] + difference)) > AGREED:
            wrong.append((NET, "NRG_0003"))
    return wrong
