"""An event's JSON body: what is taken and what is refused, with its place."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.events.request import EventKind, EventRequest, Way
from gateway.schemas.event import MAX_BODY_BYTES, parse_event

GOOD = {
    "id": "evening-1",
    "revision": 3,
    "program": "demo",
    "group": {"tags": ["zone-a"], "ids": ["home-1"]},
    "start": "2030-06-01T17:00:00-07:00",
    "end": "2030-06-02T01:00:00Z",
    "target_w": 350000.0,
}


def parse(**changes: object) -> object:
    return parse_event(orjson.dumps(GOOD | changes), source="test")


def test_body_full_event_is_read_in_the_domains_words() -> None:
    request = parse_event(orjson.dumps(GOOD | {"kind": "capacity_test", "priority": 2}), source="test")
    assert (request.id, request.revision, request.kind) == ("evening-1", 3, EventKind.CAPACITY_TEST)
    assert request.end_ms - request.start_ms == 3_600_000
    assert request.group.tags == ("zone-a",)
    assert request.group.ids == ("home-1",)
    assert (request.target_w, request.priority, request.source) == (350000.0, 2, "test")


def test_body_null_target_is_the_most_and_not_zero() -> None:
    request = parse_event(orjson.dumps(GOOD | {"target_w": None, "direction": "charge"}), source="test")
    assert request.target_w is None
    assert request.target.charge_when_max


@pytest.mark.fault("F20")
@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"id": "a b"}, "id"),
        ({"id": "x/../y"}, "id"),
        ({"revision": -1}, "revision"),
        ({"revision": True}, "revision"),
        ({"kind": "maybe"}, "kind"),
        ({"group": {}}, "group"),
        ({"group": {"all": True, "ids": ["a"]}}, "group"),
        ({"start": "2030"}, "start"),
        ({"start": 1_900_000_000}, "start"),
        ({"end": "2030-06-01T17:00:00"}, "end"),
        ({"target_w": "350000"}, "target_w"),
        ({"target_w": True}, "target_w"),
        ({"priority": 0}, "priority"),
        ({"start": "0001-01-01T00:00:00+01:00"}, "start"),
        ({"end": "9999-12-31T23:59:59-14:00"}, "end"),
        ({"repeat": {"every_s": 0.0004}}, "repeat.every_s"),
        ({"cancelled": True, "repeat": {"every_s": 0.0004}}, "repeat.every_s"),
        ({"extra": 1}, "extra"),
    ],
)
def test_body_fault_is_named_with_its_place(change: dict[str, object], place: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(**change)
    assert any(problem.startswith(place) for problem in refused.value.problems)


CHARGE: dict[str, object] = {"direction": "charge"}
DISCHARGE: dict[str, object] = {"direction": "discharge"}
LEG: dict[str, object] = {"after_s": 0, "until_s": 60}


@pytest.mark.fault("F21")
@pytest.mark.parametrize(
    ("target", "place"),
    [
        ({"target_w": 5_000} | CHARGE, "direction"),
        ({"target_w": -5_000} | DISCHARGE, "direction"),
        ({"target_w": 0.1} | CHARGE, "direction"),
        ({"target": {"want": "power", "power_w": 5_000} | CHARGE}, "target"),
        ({"target": {"want": "device_power", "power_w": -5_000} | DISCHARGE}, "target"),
        ({"target": {"want": "charge_to", "soc_pct": 80} | DISCHARGE}, "target"),
        ({"target": {"want": "backup"} | DISCHARGE}, "target"),
        ({"target": {"want": "idle"} | CHARGE}, "target"),
        ({"target": {"want": "self_consumption"} | DISCHARGE}, "target"),
        ({"target": {"want": "follow_load", "power_w": 0} | CHARGE}, "target"),
        ({"legs": [LEG | {"target_w": 5_000} | CHARGE]}, "legs.0"),
        ({"legs": [LEG | {"target_w": 5_000}]} | CHARGE, "direction"),
        ({"legs": [LEG | {"target": {"want": "idle"} | CHARGE}]}, "legs.0"),
    ],
)
def test_body_whose_sign_and_words_contradict_each_other_is_refused(target: dict[str, object], place: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        wanted(target)
    assert any(problem.startswith(place) for problem in refused.value.problems), refused.value.problems
    assert any("direction" in problem for problem in refused.value.problems)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (b'"target_w": -350000', ["target_w"]),
        (b'"cancelled": true, "cancelled": false', ["cancelled"]),
        (b'"revision": 4, "\\u0069d": "evening-2"', ["revision", "id"]),
        (b'"repeat": {"every_s": 3600, "every_s": 7200}', ["every_s"]),
    ],
)
def test_body_with_a_member_that_stands_twice_is_refused_by_its_name(more: bytes, names: list[str]) -> None:
    length = {"end": "2030-06-03T00:00:00Z", "duration_s": 600} if b"repeat" in more else {}
    with pytest.raises(InvalidInput) as refused:
        parse_event(orjson.dumps(GOOD | length)[:-1] + b", " + more + b"}", source="test")
    assert refused.value.problems == [f"{name}: stands twice" for name in names]


@pytest.mark.parametrize("value", [True, "600"])
@pytest.mark.parametrize("name", ["duration_s", "start_spread_s", "prepare_s"])
def test_body_duration_that_is_no_number_is_refused(name: str, value: object) -> None:
    changes = {name: value} if name != "duration_s" else {name: value, "end": None}
    with pytest.raises(InvalidInput, match=name):
        parse(**changes)


@pytest.mark.parametrize("change", [{"x" * 500_000: 1}, {"repeat": {"timezone": "x" * 500_000}}])
def test_body_faults_repeat_little_of_what_was_sent(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(**change)
    assert sum(map(len, refused.value.problems)) < 1_000


@pytest.mark.fault("F17")
def test_body_that_cancels_is_taken_whatever_it_repeats_of_its_event() -> None:
    assert wanted({"target_w": 5_000, "cancelled": True} | CHARGE).cancelled


@pytest.mark.fault("F21")
@pytest.mark.parametrize(
    ("target", "power_w", "way"),
    [
        ({"target_w": 5_000} | DISCHARGE, 5_000, Way.OUT),
        ({"target_w": -5_000} | CHARGE, -5_000, Way.INTO),
        ({"target_w": -5_000}, -5_000, Way.INTO),
        ({"target_w": 0} | CHARGE, 0, Way.NEITHER),
        ({"target_w": 0} | DISCHARGE, 0, Way.NEITHER),
        ({"target_w": None} | CHARGE, None, Way.INTO),
        ({"target_w": None} | DISCHARGE, None, Way.OUT),
        ({"target": {"want": "power", "power_w": None} | CHARGE}, None, Way.INTO),
        ({"target": {"want": "device_power", "power_w": -500} | CHARGE}, -500, Way.INTO),
        ({"target": {"want": "charge_to", "soc_pct": 80} | CHARGE}, None, Way.INTO),
        ({"target": {"want": "backup"} | CHARGE}, None, Way.INTO),
        ({"target": {"want": "idle"}}, None, Way.NEITHER),
        ({"target": {"want": "follow_load", "power_w": -200}}, -200, Way.NEITHER),
        ({"legs": [LEG | {"target_w": -5_000} | CHARGE]}, -5_000, Way.INTO),
    ],
)
def test_body_whose_sign_and_words_agree_is_taken(target: dict[str, object], power_w: float | None, way: Way) -> None:
    found = wanted(target).target
    assert (found.power_w, found.way) == (power_w, way)


def wanted(target: dict[str, object]) -> EventRequest:
    rest = {
        name: value for name, value in GOOD.items() if name != "target_w" and not ("legs" in target and name == "end")
    }
    return parse_event(orjson.dumps(rest | target), source="test")


def refused(body: dict[str, object]) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_event(orjson.dumps(body), source="test")
    return caught.value.problems


def test_body_with_faults_of_several_kinds_names_them_all_at_once() -> None:
    body = GOOD | {"priorty": 1, "group": {"al": True, "ids": ["a"]}, "end": "2030-06-01T10:00:00Z", "duration_s": 60,
                   "target": {"want": "idle"}}  # fmt: skip
    assert refused(body) == [
        "group.al: unknown key; did you mean all?",
        "priorty: unknown key; did you mean priority?",
        "target: stands alone, without target_w and direction",
        "end: a time and duration_s contradict each other: an event has one of them (both with repeat)",
        "end: not after start",
    ]


def test_body_key_that_is_like_no_other_is_unknown() -> None:
    assert refused(GOOD | {"zzz": 1}) == ["zzz: unknown key"]
    assert refused(GOOD | {"target": {"wants": "idle"}})[:2] == [
        "target.want: Field required", "target.wants: unknown key; did you mean want?"
    ]  # fmt: skip


def test_body_of_an_open_end_and_a_duration_says_that_they_contradict() -> None:
    assert refused(GOOD | {"end": "open", "duration_s": 60}) == [
        "end: open and duration_s contradict each other: an event has one of them (both with repeat)"
    ]


def test_body_whose_end_is_before_its_start_and_that_is_right_else_is_the_books_to_refuse() -> None:
    request = parse_event(orjson.dumps(GOOD | {"end": "2030-06-01T10:00:00Z"}), source="test")
    assert request.end_ms < request.start_ms


@pytest.mark.fault("F20")
@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"target_w": NaN}', b'{"target_w": 1e999}', b"\xff\xfe", b"[" * 50_000]
)
def test_body_that_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_event(raw, source="test")


def test_body_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(InvalidInput, match="larger"):
        parse_event(b" " * (MAX_BODY_BYTES + 1), source="test")


@pytest.mark.fault("F20")
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), st.none() | st.integers() | st.text(max_size=20) | st.floats()))
def test_body_anything_else_raises_nothing_but_invalid_input(changes: dict[str, object]) -> None:
    try:
        raw = orjson.dumps(GOOD | changes, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return
    problems = ["none: it was taken"]
    try:
        parse_event(raw, source="test")
    except InvalidInput as refused:
        problems = refused.problems
    assert problems
