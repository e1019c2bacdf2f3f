"""What a body of a peer becomes: fields from their places, unknown things refused by their pointer, never guessed."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.domain.events.request import Compensation, EventKind, EventRequest
from gateway.signals.webhook.loader import parse_webhook
from gateway.signals.webhook.mapping import BadEvent, WebhookEvent, read_events, revised
from gateway.signals.webhook.pointer import ABSENT, value_at
from tests.signals.webhook.builders import DOCUMENTS, FOLDER, axle_event, dispatch, dispatches

T0 = 1_900_000_000_000
HOUR_MS = 3_600_000


def one(name: str, body: Any) -> WebhookEvent | BadEvent:
    (found,) = read_events(DOCUMENTS[name], body if isinstance(body, bytes) else orjson.dumps(body), T0)
    return found


def asked(name: str, body: Any) -> EventRequest:
    found = one(name, body)
    assert isinstance(found, WebhookEvent), found
    assert found.request is not None
    return found.request


def problems(name: str, body: Any) -> tuple[str, ...]:
    found = one(name, body)
    assert isinstance(found, BadEvent)
    return found.problems


def test_pointers_are_those_of_the_standard() -> None:
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8, " ": 7}
    pointers = {
        "": document,
        "/foo": ["bar", "baz"],
        "/foo/0": "bar",
        "/": 0,
        "/a~1b": 1,
        "/c%d": 2,
        "/m~0n": 8,
        "/ ": 7,
    }
    assert {pointer: value_at(document, pointer) for pointer in pointers} == pointers
    for pointer in ("/foo/2", "/foo/-", "/foo/01", "/foo/x", "/none", "/foo/0/x"):
        assert value_at(document, pointer) is ABSENT


def test_event_like_axles_asks_its_asset_for_its_level_with_our_sign() -> None:
    request = asked("axle", axle_event(at_ms=T0, issued_ms=T0 - 5))
    assert (request.source, request.id, request.revision, request.program) == ("axle", "e", T0 - 5, "uk-flexibility")
    assert (request.start_ms, request.end_ms, request.target.power_w) == (T0, T0 + HOUR_MS, 2_000.0)
    assert (request.group.tags, request.kind) == (("axle:a1",), EventKind.REAL)
    assert asked("axle", axle_event(at_ms=T0, issued_ms=T0, level_kw=1.5)).target.power_w == -1_500.0


def test_power_that_is_null_is_the_most_and_one_that_is_absent_is_refused() -> None:
    most = asked("axle", axle_event(at_ms=T0, issued_ms=T0, level_kw=None))
    assert (most.target.power_w, most.target.charge_when_max) == (None, False)
    body = axle_event(at_ms=T0, issued_ms=T0)
    del body["level_kw"]
    assert problems("axle", body) == ("/level_kw: missing",)
    assert asked("axle", axle_event(at_ms=T0, issued_ms=T0, level_kw=0)).target.power_w == 0.0


def test_dispatch_like_voltus_sums_its_sites_and_may_have_no_end_yet() -> None:
    request = asked("voltus", dispatches(dispatch(at_ms=T0, revision=3, test=True)))
    assert (request.revision, request.target.power_w, request.kind) == (3, 3_000.0, EventKind.CAPACITY_TEST)
    assert (request.group.tags, request.priority, request.voluntary) == (("voltus:s1", "voltus:s2"), 50, False)
    assert request.compensation is Compensation.SITE_LOAD
    body = dispatch(at_ms=T0)
    del body["end_time"]
    assert asked("voltus", dispatches(body)).open_ended


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": None}, "/dispatches/0/id: null, where a value is needed"),
        ({"id": "a b"}, '/dispatches/0/id: "a b" is no id'),
        ({"modification_number": -1}, "/dispatches/0/modification_number: a whole number"),
        ({"modification_number": True}, "/dispatches/0/modification_number: a whole number"),
        ({"authorized": 1}, "/dispatches/0/authorized: 1 is none of true, false"),
        ({"start_time": "tomorrow"}, '/dispatches/0/start_time: "tomorrow" is no time'),
        ({"start_time": "2030-06-01T17:00:00"}, "/dispatches/0/start_time: "),
        ({"start_time": "1830-06-01T17:00:00Z"}, "/dispatches/0/start_time: a year from"),
        ({"program": "other"}, '/dispatches/0/program: "other" is none of "demand-response"'),
        ({"sites": []}, "/dispatches/0/sites: names no device"),
        ({"sites": {}}, "/dispatches/0/sites: a list is needed, not an object"),
        ({"sites": [{"id": "x"}]}, "/dispatches/0/sites/0/commitment: missing"),
        ({"sites": [{"id": "x", "commitment": "1"}]}, '/dispatches/0/sites/0/commitment: a number is needed, not "1"'),
        ({"test": "maybe"}, '/dispatches/0/test: "maybe" is none of'),
    ],
)  # fmt: skip
def test_field_that_is_not_as_the_file_says_is_refused_by_its_pointer(change: dict[str, Any], told: str) -> None:
    found = problems("voltus", dispatches(dispatch(at_ms=T0, **change)))
    assert any(each.startswith(told) for each in found), found


@pytest.mark.parametrize("kw", [1e306, -1e306, 1.7e308])
def test_power_that_is_too_large_for_a_number_is_refused_and_never_the_most(kw: float) -> None:
    assert problems("axle", axle_event(at_ms=T0, issued_ms=T0, level_kw=kw)) == (
        f"/level_kw: {orjson.dumps(kw).decode()} is too large",
    )
    sites = [{"id": "s1", "commitment": kw}, {"id": "s2", "commitment": kw}]
    (told,) = problems("voltus", dispatches(dispatch(at_ms=T0, sites=sites)))
    assert told.startswith("/dispatches/0/sites: ")
    assert "too large" in told


def test_length_and_reserve_that_are_too_large_for_a_number_are_refused() -> None:
    event: dict[str, Any] = {
        "id": {"at": "/id"}, "start": {"at": "/start", "time": "epoch_s"}, "duration": {"at": "/hours", "unit": "h"},
        "power": {"at": "/kw", "unit": "kW", "positive": "discharge"}, "reserve": {"at": "/keep", "unit": "fraction",
        "absent": 0.2}, "program": {"value": "p"}, "devices": {"all": True},
    }  # fmt: skip
    file = {
        "webhook": "x", "title": "one of ours", "evidence": "unverified", "source": "none known",
        "auth": {"kind": "bearer", "secret": "env:X"}, "event": event,
    }  # fmt: skip
    peer = parse_webhook(orjson.dumps(file).decode(), name="x.yaml")
    body = {"id": "e", "start": T0 // 1000, "hours": 1e306, "kw": 1, "keep": 1e308}
    (found,) = read_events(peer, orjson.dumps(body), T0)
    assert isinstance(found, BadEvent)
    assert {problem.partition(":")[0] for problem in found.problems} == {"/hours", "/keep"}
    assert all("too large" in problem for problem in found.problems)


def test_bad_event_of_a_body_keeps_back_no_other() -> None:
    body = dispatches(dispatch("a", at_ms=T0), dispatch("b", at_ms=T0, program="x"), dispatch("c", at_ms=T0))
    found = read_events(DOCUMENTS["voltus"], body, T0)
    assert [type(each).__name__ for each in found] == ["WebhookEvent", "BadEvent", "WebhookEvent"]
    assert [each.id for each in found] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"", "(body): not JSON"), (b"{", "(body): not JSON"), (b"NaN", "(body): not JSON"),
     (b"[]", "/dispatches: missing"),
     (b'{"dispatches": []}', "/dispatches: a list of events"), (b'{"dispatches": 1, "dispatches": 2}', "stands twice"),
     (b"[" * 5_000 + b"]" * 5_000, "(body): not JSON"),
     (orjson.dumps({"dispatches": [{}] * 65}), "/dispatches: more than 64 events")],
)  # fmt: skip
def test_body_that_is_none_of_events_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_events(DOCUMENTS["voltus"], body, T0)
    assert told in refused.value.problems[0]


def test_unsigned_power_goes_the_way_of_the_direction_with_reserve_and_charge_before() -> None:
    text = (
        (FOLDER / "axle.yaml")
        .read_text(encoding="utf-8")
        .replace("positive: charge, if_null: most_discharge", "positive: unsigned, if_null: most")
    )
    text += (
        "  direction: {at: /way, discharge: [export, 1], charge: [import]}\n"
        "  reserve: {at: /reserve, unit: fraction}\n"
        "  prepare: {at: /before, unit: min}\n"
        "  precharge: {at: /fill, absent: false}\n"
    )
    document = parse_webhook(text, name="axle.yaml")

    def read(**other: Any) -> EventRequest:
        body = axle_event(at_ms=T0, issued_ms=T0, level_kw=2, reserve=0.25, before=30, fill=True) | other
        (found,) = read_events(document, orjson.dumps(body), T0)
        assert isinstance(found, WebhookEvent), found
        assert found.request is not None
        return found.request

    out = read(way="export")
    assert (out.target.power_w, out.reserve_pct, out.prepare_s, out.precharge) == (2_000.0, 25.0, 1_800.0, True)
    assert read(way="import").target.power_w == -2_000.0
    assert read(way="import", level_kw=None).target.charge_when_max
    assert not read(way=1, level_kw=None).target.charge_when_max
    (bad,) = read_events(document, orjson.dumps(axle_event(at_ms=T0, issued_ms=T0, way="up", level_kw=1, before=1)), T0)
    assert isinstance(bad, BadEvent)
    assert bad.problems[0].startswith('/way: "up" is none of "export", 1, "import"')


# -- changes -----------------------------------------------------------------------------------------------------

UNORDERED = parse_webhook(
    (FOLDER / "voltus.yaml")
    .read_text(encoding="utf-8")
    .replace("  order: {at: /modification_number, as: number}\n", ""),
    name="voltus.yaml",
)


def unordered(**other: Any) -> WebhookEvent:
    (found,) = read_events(UNORDERED, dispatches(dispatch(at_ms=T0, **other)), T0)
    assert isinstance(found, WebhookEvent)
    return found


def test_peer_without_order_changes_an_event_by_sending_another_and_repeats_it_by_the_same() -> None:
    first = revised(unordered(), None, "voltus", T0)
    assert first is not None
    assert first.revision == 0
    assert revised(unordered(), first, "voltus", T0) == first
    changed = revised(unordered(sites=[{"id": "s1", "commitment": 9}]), first, "voltus", T0)
    assert changed is not None
    assert (changed.revision, changed.target.power_w) == (1, 9_000.0)


def test_cancellation_of_a_peer_without_order_is_final() -> None:
    first = revised(unordered(), None, "voltus", T0)
    gone = revised(unordered(authorized=False), first, "voltus", T0)
    assert first is not None
    assert gone == replace(first, revision=1, cancelled=True)
    # a late repetition of the event, and one of the cancellation
    assert revised(unordered(), gone, "voltus", T0) is None
    assert revised(unordered(authorized=False), gone, "voltus", T0) == gone


def test_cancellation_that_says_the_id_alone_is_taken_before_and_after_its_event() -> None:
    (bare,) = read_events(
        DOCUMENTS["voltus"], dispatches({"id": "e", "authorized": False, "modification_number": 2}), T0
    )
    assert isinstance(bare, WebhookEvent)
    early = revised(bare, None, "voltus", T0)
    assert early is not None
    assert (early.id, early.revision, early.cancelled, early.source) == ("e", 2, True, "voltus")
    known = asked("voltus", dispatches(dispatch(at_ms=T0, revision=1)))
    assert revised(bare, known, "voltus", T0) == replace(known, revision=2, cancelled=True)


def test_at_the_same_order_a_cancellation_wins_and_an_activation_revives_nothing() -> None:
    def sent(**other: Any) -> WebhookEvent:
        (found,) = read_events(DOCUMENTS["axle"], orjson.dumps(axle_event(at_ms=T0, issued_ms=T0, **other)), T0)
        assert isinstance(found, WebhookEvent)
        return found

    known = revised(sent(), None, "axle", T0)
    assert known is not None
    gone = revised(sent(active=False, level_kw=-9.0), known, "axle", T0)
    assert gone == replace(known, cancelled=True)
    assert revised(sent(active=False), gone, "axle", T0) == gone
    assert revised(sent(), gone, "axle", T0) is None
    later = read_events(DOCUMENTS["axle"], orjson.dumps(axle_event(at_ms=T0, issued_ms=T0 + 1)), T0)[0]
    assert isinstance(later, WebhookEvent)
    back = revised(later, gone, "axle", T0)
    assert back is not None
    assert (back.revision, back.cancelled) == (T0 + 1, False)


# -- whatever comes ----------------------------------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=20)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
changes = st.dictionaries(
    st.sampled_from([*dispatch(at_ms=T0), *axle_event(at_ms=T0, issued_ms=T0), "active"]), values, max_size=6
)


def events_of(name: str, body: bytes) -> list[WebhookEvent | BadEvent]:
    try:
        return read_events(DOCUMENTS[name], body, T0)
    except InvalidInput:
        return []


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(["axle", "voltus"]), change=changes, body=st.none() | st.binary(max_size=64))
def test_any_body_is_read_or_refused_with_where_and_why(name: str, change: dict[str, Any], body: bytes | None) -> None:
    whole: Any = axle_event(at_ms=T0, issued_ms=T0) | change
    if name == "voltus":
        whole = {"dispatches": [dispatch(at_ms=T0) | change]}
    found = events_of(name, orjson.dumps(whole) if body is None else body)
    for event in found:
        if isinstance(event, BadEvent):
            assert event.problems
            assert all(": " in problem and problem[0] in "/(" for problem in event.problems)
        else:
            request = revised(event, None, name, T0)
            assert request is not None
            assert request.source == name
            assert request.cancelled is event.cancelled
            power_w = request.target.power_w
            assert power_w is None or power_w == power_w  # noqa: PLR0124 (no NaN)
            # the same body again is the same event
            assert revised(event, request, name, T0) == request


@settings(max_examples=100, deadline=None)
@given(kw=st.floats(-1e6, 1e6), at_ms=st.integers(T0, T0 + 10**9), issued_ms=st.integers(T0 - 10**9, T0))
def test_times_and_power_of_an_event_are_those_of_its_body(kw: float, at_ms: int, issued_ms: int) -> None:
    request = asked("axle", axle_event(at_ms=at_ms, issued_ms=issued_ms, level_kw=kw))
    assert (request.start_ms, request.revision) == (at_ms, issued_ms)
    assert request.target.power_w == pytest.approx(-kw * 1_000)
