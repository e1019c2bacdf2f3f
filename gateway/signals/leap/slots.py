"""Reads the aggregator's dispatch bodies: webhooks of meters and groups, and pages of search. Pure.

    webhook  {integration_test_notification, communication_test, meter_dispatches | group_dispatches: [item]}
    search   {results: [item], next_page_token}
    item     {meter_id, partner_reference?, timeslots: [slot]}
             {market_group_id, meter_ids: [..], partner_references?: [..], timeslots: [slot]}

A slot that cannot be dispatched as it stands is a `BadSlot`; its siblings are read all the same. A required field that
is absent and changes nothing about safety is filled in and named in `gaps`. Fields that nobody knows are kept in
`more`, and no enum is closed. A cancellation is taken by its id, whatever else it says.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, TypeVar

Level = Literal["meter", "group"]
LEVELS: tuple[Level, ...] = ("meter", "group")

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
KW_MIN, KW_MAX = 0.01, 100_000.0
PRIORITY_MIN, PRIORITY_MAX = 1, 10
SLOT_MS_MAX = 24 * 3_600_000
TEXT_MAX = 256
MORE_MAX = 4_096
WORDS_MAX = 16
SHOWN_MAX = 120
BAD_NAMED_MAX = 1_000
"""Slots of a body that are named as not readable."""
YEARS = range(2000, 2200)

INTEGRATION_FLAGS = ("integration_test_notification", "is_integration_test_notification")
COMMUNICATION_FLAGS = ("communication_test", "is_communication_test")
"""The public text spells the flag both ways, and has it beside the dispatches as well as in a slot."""

_ITEMS: Mapping[Level, tuple[str, str, str]] = {
    "meter": ("meter_dispatches", "meter_id", "meter_event_id"),
    "group": ("group_dispatches", "market_group_id", "market_group_event_id"),
}
_OF_AN_ITEM = {"meter_id", "market_group_id", "meter_ids", "partner_reference", "partner_references", "timeslots"}
_OF_A_SLOT = {
    "meter_event_id", "market_group_event_id", "start_time", "end_time", "cancelled", "energy_kw", "nomination_kw",
    "performance_compensation_cap", "priority", "is_voluntary", "dispatch_event_types", "programs",
    *COMMUNICATION_FLAGS, *INTEGRATION_FLAGS,
}  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSlot:
    """One slot of one meter or group. `owner`: the meter's or the group's id; `energy_kw`: mean kW to curtail or export
    (of a group in all), None = as much as can be sustained; `cap`: where pay stops; `types`: markets and tests that it
    stems from; `test`: a communication test, which moves batteries; `integration`: a test of the interface, which never
    does; `meters`: of a group; `gaps`: required fields that were absent; `more`: fields that nobody knows, as JSON."""

    level: Level
    event_id: str
    owner: str
    start_ms: int = 0
    end_ms: int = 0
    energy_kw: float | None = None
    nomination_kw: float | None = None
    cancelled: bool = False
    cap: str = ""
    priority: int = PRIORITY_MAX
    voluntary: bool = False
    types: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    test: bool = False
    integration: bool = False
    meters: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    more: str = ""

    @property
    def key(self) -> tuple[bool, str, str, str]:
        """What a later message about the same slot has too. A test of the interface never touches a real slot."""
        return (self.integration, self.level, self.event_id, self.owner)

    @property
    def members(self) -> tuple[str, ...]:
        """The meters that it is for."""
        return self.meters if self.level == "group" else (self.owner,)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSlot:
    """A slot, or an item with its slots, that cannot be read. `place`: where in the body; `problem`: what is wrong."""

    place: str
    problem: str
    event_id: str = ""


@dataclass(slots=True, kw_only=True)
class BodyRead:
    """What a body says. `bad`: the first of what cannot be read, of `bad_total`; `problem`: why it is no dispatch body
    at all, "" = it is one."""

    slots: list[DispatchSlot] = field(default_factory=list)
    bad: list[BadSlot] = field(default_factory=list)
    bad_total: int = 0
    problem: str = ""

    def refuse(self, place: str, problem: str, event_id: str = "") -> None:
        """Note what cannot be read. A body of nothing else is millions of them, so only the first are named."""
        self.bad_total += 1
        if len(self.bad) < BAD_NAMED_MAX:
            self.bad.append(BadSlot(place=place, problem=problem, event_id=event_id))


class NotReadable(ValueError):
    """A field that is not what it must be; says which and why."""


def read_webhook(body: object, level: Level) -> BodyRead:
    """The slots of a webhook's body."""
    if not isinstance(body, Mapping):
        return BodyRead(problem="the body is no JSON object")
    items = body.get(_ITEMS[level][0])
    if not isinstance(items, list):
        return BodyRead(problem=f"{_ITEMS[level][0]}: missing, or no list")
    try:
        integration, test = _flag(body, INTEGRATION_FLAGS), _flag(body, COMMUNICATION_FLAGS)
    except NotReadable as error:
        # a test of the interface must move nothing, so a body that may be one is not guessed at
        return BodyRead(problem=str(error))
    known = {_ITEMS[level][0], *INTEGRATION_FLAGS, *COMMUNICATION_FLAGS}
    beside = {name: value for name, value in body.items() if name not in known}
    return _read(items, level, _ITEMS[level][0], integration=integration, test=test, beside=beside)


def read_results(results: object, level: Level) -> BodyRead:
    """The slots of a page of search."""
    if not isinstance(results, list):
        return BodyRead(problem="results: missing, or no list")
    return _read(results, level, "results", integration=False, test=False, beside={})


def _read(
    items: Sequence[Any], level: Level, name: str, *, integration: bool, test: bool, beside: Mapping[str, Any]
) -> BodyRead:
    found = BodyRead()
    _, owner_name, id_name = _ITEMS[level]
    for i, item in enumerate(items):
        place = f"{name}[{i}]"
        if not isinstance(item, Mapping):
            found.refuse(place, "no object")
            continue
        try:
            base = _base(item, level, owner_name, integration=integration, test=test)
            slots = item.get("timeslots")
            if not isinstance(slots, list) or not slots:
                raise NotReadable("timeslots: missing, or no list with a slot")
        except NotReadable as error:
            found.refuse(place, str(error), _first_id(item, id_name))
            continue
        more = dict(beside) | {key: value for key, value in item.items() if key not in _OF_AN_ITEM}
        for j, slot in enumerate(slots):
            at = f"{place}.timeslots[{j}]"
            if not isinstance(slot, Mapping):
                found.refuse(at, "no object")
                continue
            try:
                found.slots.append(_slot(slot, id_name, base, more))
            except NotReadable as error:
                found.refuse(at, str(error), _shown(slot.get(id_name)))
    return found


def _base(item: Mapping[str, Any], level: Level, owner_name: str, *, integration: bool, test: bool) -> dict[str, Any]:
    """What all slots of an item share."""
    owner = _uuid(item.get(owner_name), owner_name)
    meters: tuple[str, ...] = ()
    if level == "group":
        listed = item.get("meter_ids")
        if not isinstance(listed, list) or not listed:
            raise NotReadable("meter_ids: missing, or no list with a meter")
        meters = tuple(dict.fromkeys(_uuid(one, "meter_ids") for one in listed))
    told = item.get("partner_references") if level == "group" else [item.get("partner_reference")]
    references = tuple(one[:TEXT_MAX] for one in told if isinstance(one, str)) if isinstance(told, list) else ()
    return {
        "level": level, "owner": owner, "meters": meters, "references": references,
        "integration": integration or _flag(item, INTEGRATION_FLAGS), "test": test or _flag(item, COMMUNICATION_FLAGS),
    }  # fmt: skip


def _slot(slot: Mapping[str, Any], id_name: str, base: Mapping[str, Any], beside: Mapping[str, Any]) -> DispatchSlot:
    event_id = _uuid(slot.get(id_name), id_name)
    integration = base["integration"] or _flag(slot, INTEGRATION_FLAGS)
    if slot.get("cancelled") is True:
        # by its id alone: what else it says may be anything
        return DispatchSlot(**(dict(base) | {"event_id": event_id, "integration": integration, "cancelled": True,
                                             **_times_if_any(slot)}))  # fmt: skip
    if slot.get("cancelled") not in (False, None):
        raise NotReadable(f"cancelled: neither true nor false: {_shown(slot.get('cancelled'))}")
    start_ms, end_ms = _time(slot, "start_time"), _time(slot, "end_time")
    if not start_ms < end_ms <= start_ms + SLOT_MS_MAX:
        raise NotReadable("end_time: not after start_time, or more than 24 h after it")
    gaps: list[str] = []

    def filled(name: str, read: T | None, otherwise: T) -> T:
        if read is None:
            gaps.append(name)
            return otherwise
        return read

    priority, voluntary = slot.get("priority"), slot.get("is_voluntary")
    whole = isinstance(priority, int) and not isinstance(priority, bool) and PRIORITY_MIN <= priority <= PRIORITY_MAX
    more = dict(beside) | {key: value for key, value in slot.items() if key not in _OF_A_SLOT}
    if slot.get("cancelled") is None:
        gaps.append("cancelled")
    return DispatchSlot(**(dict(base) | {
        "event_id": event_id,
        "integration": integration,
        "test": base["test"] or _flag(slot, COMMUNICATION_FLAGS),
        "start_ms": start_ms,
        "end_ms": end_ms,
        "energy_kw": _kw(slot, "energy_kw"),
        "nomination_kw": _kw(slot, "nomination_kw"),
        "cap": filled("performance_compensation_cap", _word(slot.get("performance_compensation_cap")), ""),
        "priority": filled("priority", priority if whole else None, PRIORITY_MAX),
        # a commitment has penalties: what does not say that it is voluntary is served as one
        "voluntary": filled("is_voluntary", voluntary if isinstance(voluntary, bool) else None, False),
        "types": filled("dispatch_event_types", _words(slot.get("dispatch_event_types")), ()),
        "programs": filled("programs", _words(slot.get("programs")), ()),
        "gaps": tuple(gaps),
        "more": _more(more),
    }))  # fmt: skip


def _flag(of: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether a flag is set under any of its names. Raises NotReadable for what is neither true nor false."""
    found = False
    for name in names:
        value = of.get(name)
        said = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
        if said is not None and not isinstance(said, bool):
            raise NotReadable(f"{name}: neither true nor false: {_shown(value)}")
        found = found or said is True
    return found


def _uuid(value: object, name: str) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if not UUID.fullmatch(text):
        raise NotReadable(f"{name}: not a UUID: {_shown(value)}")
    return text


def _time(slot: Mapping[str, Any], name: str) -> int:
    """UTC ms. Raises NotReadable."""
    value = slot.get(name)
    found = _moment_ms(value) if isinstance(value, str) else None
    if found is None:
        raise NotReadable(f"{name}: not a time in RFC 3339 with its zone: {_shown(value)}")
    return found


@lru_cache(maxsize=4_096)
def _moment_ms(text: str) -> int | None:
    """UTC ms; the slots of a body share few times."""
    if "T" not in text.upper():
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        return round(moment.timestamp() * 1000) if moment.tzinfo is not None and moment.year in YEARS else None
    except (ValueError, OverflowError):
        return None


def _times_if_any(slot: Mapping[str, Any]) -> dict[str, int]:
    """The times of a cancelled slot, where they can be read."""
    try:
        return {"start_ms": _time(slot, "start_time"), "end_ms": _time(slot, "end_time")}
    except NotReadable:
        return {}


def _kw(slot: Mapping[str, Any], name: str) -> float | None:
    value = slot.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not KW_MIN <= value <= KW_MAX:
        raise NotReadable(f"{name}: neither null nor {KW_MIN} to {KW_MAX:.0f}: {_shown(value)}")
    return float(value)


def _word(value: object) -> str | None:
    return value[:TEXT_MAX] if isinstance(value, str) and value else None


def _words(value: object) -> tuple[str, ...] | None:
    """The words of a list, each once; None if there is none."""
    if not isinstance(value, list):
        return None
    return _unique(tuple(one for one in value[:WORDS_MAX] if isinstance(one, str))) or None


@lru_cache(maxsize=1_024)
def _unique(words: tuple[str, ...]) -> tuple[str, ...]:
    """Each word once and not too long; the slots of a body share few lists."""
    return tuple(dict.fromkeys(word[:TEXT_MAX] for word in words if word))


def _more(unknown: Mapping[str, Any]) -> str:
    """Unknown fields as one line of JSON; those that are too long are named alone."""
    if not unknown:
        return ""
    text = json.dumps(unknown, separators=(",", ":"), sort_keys=True)
    return text if len(text) <= MORE_MAX else json.dumps({"too_long": sorted(map(str, unknown))[:WORDS_MAX]})


def _first_id(item: Mapping[str, Any], id_name: str) -> str:
    slots = item.get("timeslots")
    first = slots[0] if isinstance(slots, list) and slots else None
    return _shown(first.get(id_name)) if isinstance(first, Mapping) else ""


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return "".join(c if c.isprintable() else "?" for c in text[:SHOWN_MAX])


def parts(found: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """A list in pieces."""
    for at in range(0, len(found), size):
        yield found[at : at + size]
