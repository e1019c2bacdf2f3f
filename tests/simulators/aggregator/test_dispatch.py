"""Dispatch as the aggregator tells it: search, registration, tests, and webhooks that come as they like."""

import random
from dataclasses import replace
from typing import Any

import orjson
import pytest

from simulators.aggregator import Access, Environment, Event, Flag, Kind, Manner, Mischief, State, slot
from simulators.aggregator.contract import OffContract
from simulators.clock import ManualClock
from tests.simulators.aggregator.asking import (
    KEY,
    METER,
    NOON_MS,
    OTHER_METER,
    Asker,
    Receiver,
    aggregator,
    asking,
    receiving,
)

HOUR_MS = 3_600_000
GROUP = "2d1e7a3c-5d0f-4c11-9f5e-8f1d2c3b4a59"
SEARCH = "/v2/dispatch/meter/search"
GROUP_SEARCH = "/v2/dispatch/group/search"
HOOK = "/v2/dispatch/meter/webhook"
DAY_ASKED = {"start_date": "2026-11-20T00:00:00Z", "end_date": "2026-11-21T00:00:00Z"}


def event(hours: float = 2, target: str = METER, **fields: Any) -> Event:
    start_ms = NOON_MS + round(hours * HOUR_MS)
    return Event(kind=Kind.METER, target=target, slot=slot(Kind.METER, start_ms, start_ms + HOUR_MS, **fields))


def group_event(hours: float = 2, **fields: Any) -> Event:
    start_ms = NOON_MS + round(hours * HOUR_MS)
    made = slot(Kind.GROUP, start_ms, start_ms + HOUR_MS, **fields)
    return Event(kind=Kind.GROUP, target=GROUP, slot=made, members=(METER, OTHER_METER))


async def search(client: Asker, path: str = SEARCH, **fields: Any) -> Any:
    answer = await client.send("POST", path, DAY_ASKED | fields)
    assert answer.status == 200
    return answer.json()


async def register(client: Asker, receiver: Receiver, kind: Kind = Kind.METER) -> None:
    headers = [{"name": "X-Secret", "value": "shared"}]
    answer = await client.send("PUT", f"/v2/dispatch/{kind.value}/webhook", {"url": receiver.url, "headers": headers})
    assert answer.status == 200


async def test_dispatch_search_gives_adjacent_and_overlapping_slots_of_a_meter_by_start() -> None:
    async with asking() as (served, client):
        award = served.dispatch_book.put(event(2, energy_kw=8.0, programs=["CCA"], priority=2))
        served.dispatch_book.put(event(3, energy_kw=8.0, programs=["CCA"], priority=2))
        served.dispatch_book.put(event(2.5))
        (result,) = (await search(client))["results"]
        assert result["meter_id"] == METER
        assert [one["start_time"] for one in result["timeslots"]] == [
            "2026-11-20T14:00:00.000Z", "2026-11-20T14:30:00.000Z", "2026-11-20T15:00:00.000Z",
        ]  # fmt: skip
        assert result["timeslots"][0] == award.slot | {"communication_test": False}
        assert result["timeslots"][1]["energy_kw"] is None


async def test_dispatch_event_with_a_known_id_replaces_the_old_one_wholly() -> None:
    async with asking() as (served, client):
        first = served.dispatch_book.put(event(energy_kw=8.0, dispatch_event_types=["day-ahead"]))
        served.dispatch_book.change(first, energy_kw=3.0, dispatch_event_types=["hour-ahead"])
        (result,) = (await search(client))["results"]
        assert [one["energy_kw"] for one in result["timeslots"]] == [3.0]
        served.dispatch_book.cancel(first)
        (result,) = (await search(client))["results"]
        assert [one["cancelled"] for one in result["timeslots"]] == [True]


async def test_dispatch_search_of_groups_names_their_members() -> None:
    async with asking() as (served, client):
        served.dispatch_book.put(group_event(energy_kw=100.0))
        (result,) = (await search(client, GROUP_SEARCH))["results"]
        assert (result["market_group_id"], result["meter_ids"]) == (GROUP, [METER, OTHER_METER])
        assert (await search(client))["results"] == []


async def test_dispatch_search_hides_real_time_events_unless_asked_and_voluntary_ones_if_asked() -> None:
    async with asking() as (served, client):
        served.dispatch_book.put(event(2, dispatch_event_types=["5m"], is_voluntary=False))
        served.dispatch_book.put(event(4))

        async def count(**fields: Any) -> int:
            return sum(len(one["timeslots"]) for one in (await search(client, **fields))["results"])

        assert await count() == 1
        assert await count(exclude_real_time_events=False) == 2
        assert await count(exclude_real_time_events=False, exclude_voluntary_events=True) == 1


async def test_dispatch_search_filters_by_meter_and_by_event() -> None:
    async with asking() as (served, client):
        mine = served.dispatch_book.put(event())
        served.dispatch_book.put(event(target=OTHER_METER))
        assert [one["meter_id"] for one in (await search(client, meter_ids=[METER]))["results"]] == [METER]
        found = await search(client, meter_event_ids=[mine.event_id])
        assert [one["meter_id"] for one in found["results"]] == [METER]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"start_date": "2026-11-20T00:00:00Z"},
        DAY_ASKED | {"end_date": "2026-11-20T00:00:00Z"},
        DAY_ASKED | {"end_date": "2026-12-21T00:00:01Z"},
        DAY_ASKED | {"meter_ids": []},
        DAY_ASKED | {"meter_ids": ["a meter"]},
        DAY_ASKED | {"meter_ids": [METER, METER]},
        DAY_ASKED | {"page_token": "1"},
        DAY_ASKED | {"page_token": GROUP},
        DAY_ASKED | {"exclude_real_time_events": "yes"},
    ],
)
async def test_dispatch_search_refuses_what_the_contract_refuses(asked: dict[str, Any]) -> None:
    async with asking() as (_, client):
        refused = await client.send("POST", SEARCH, asked)
        assert refused.status == 400
        assert (refused.json()["code"], refused.json()["error_code"]) == ("BAD_REQUEST", "DISPATCH_INVALID_INPUT")


async def test_dispatch_search_takes_a_window_of_31_days() -> None:
    async with asking() as (_, client):
        assert await search(client, end_date="2026-12-21T00:00:00Z") == {"results": [], "next_page_token": None}


async def test_dispatch_key_of_the_other_environment_is_forbidden_in_the_words_of_dispatch() -> None:
    keys = {KEY: Access(environment=Environment.PRODUCTION)}
    async with asking(aggregator(keys=keys)) as (_, client):
        assert (await client.send("POST", SEARCH, DAY_ASKED)).json()["code"] == "FORBIDDEN"
        unknown = await client.ask("POST", SEARCH, key=None)
        assert (unknown.status, unknown.json()["code"]) == (401, "UNAUTHORIZED")


def meter_id(number: int) -> str:
    return f"{number:08x}-5d0f-4c11-9f5e-8f1d2c3b4a59"


@pytest.mark.parametrize("offset", [False, True])
async def test_dispatch_pages_hold_500_and_shift_under_the_reader_only_where_switched_on(offset: bool) -> None:
    async with asking(aggregator(mischief=Mischief(offset_pages=offset))) as (served, client):
        for number in range(1, 602):
            served.dispatch_book.put(event(target=meter_id(number)))
        first = await search(client)
        served.dispatch_book.put(event(target=meter_id(0)))
        second = await search(client, page_token=first["next_page_token"])
        seen = [one["meter_id"] for page in (first, second) for one in page["results"]]
        assert len(first["results"]) == 500
        assert second["next_page_token"] is None
        assert len(seen) - len(set(seen)) == (1 if offset else 0)


async def test_dispatch_pages_may_count_slots_instead_of_meters() -> None:
    async with asking() as (served, client):
        served.dispatch.points.page_counts_slots = True
        for number in range(501):
            served.dispatch_book.put(event(number / 100))
        first = await search(client)
        assert [len(one["timeslots"]) for one in first["results"]] == [500]
        second = await search(client, page_token=first["next_page_token"])
        assert [len(one["timeslots"]) for one in second["results"]] == [1]


async def test_dispatch_hidden_event_is_counted_and_comes_once_its_time_is_over() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (served, client):
        hidden = served.dispatch_book.hide(event(), NOON_MS + 60_000)
        assert (await search(client))["results"] == []
        clock.advance(60)
        assert len((await search(client))["results"]) == 1
        assert served.dispatch_book.withheld == {hidden.event_id: 1}
        assert served.dispatch_book.returned == {hidden.event_id: [NOON_MS + 60_000]}


async def test_dispatch_unknown_programs_and_enums_are_taken_into_the_book_and_bad_slots_are_not() -> None:
    async with asking() as (served, client):
        served.dispatch_book.put(event(programs=["NEW-PROGRAM"]))
        served.mischief.unknown_enums = served.mischief.extra_fields = True
        (found,) = (await search(client))["results"][0]["timeslots"][:1]
        assert found["programs"] == ["NEW-PROGRAM"]
        assert len(found["dispatch_event_types"]) == 2
        with pytest.raises(OffContract):
            served.dispatch_book.put(event(priority=11))


async def test_dispatch_webhook_is_one_per_kind_and_is_read_replaced_and_deleted() -> None:
    async with asking() as (_, client):
        assert (await client.send("GET", HOOK)).status == 404
        assert (await client.send("DELETE", HOOK)).status == 404
        assert (await client.send("PUT", HOOK, {"headers": []})).status == 400
        first = {"url": "https://one.example/hook", "headers": [{"name": "X-Secret", "value": "shared"}]}
        put = await client.send("PUT", HOOK, first)
        assert (put.status, put.json()) == (200, first)
        assert (await client.send("PUT", HOOK, {"url": "https://two.example/hook"})).status == 200
        assert (await client.send("GET", HOOK)).json() == {"url": "https://two.example/hook"}
        assert (await client.send("GET", "/v2/dispatch/group/webhook")).status == 404
        deleted = await client.send("DELETE", HOOK)
        assert (deleted.status, deleted.body) == (204, b"")
        assert (await client.send("GET", HOOK)).json()["code"] == "NOT_FOUND"


@pytest.mark.parametrize("flag", list(Flag))
async def test_dispatch_push_carries_flags_slots_and_the_lower_cased_header(flag: Flag) -> None:
    async with asking() as (served, client), receiving() as receiver:
        await register(client, receiver)
        tested = replace(served.dispatch_book.put(event()), communication_test=True, partner_reference="home 1")
        served.dispatch.push(tested, flag=flag, later="field")
        assert await served.deliveries.run_due() == 1
        assert orjson.loads(receiver.bodies[0]) == {
            "integration_test_notification": False,
            flag.value: True,
            "later": "field",
            "meter_dispatches": [{"meter_id": METER, "partner_reference": "home 1", "timeslots": [tested.slot]}],
        }
        assert ("x-secret", "shared") in receiver.headers[0]


async def test_dispatch_push_of_groups_goes_to_their_own_url() -> None:
    async with asking() as (served, client), receiving() as receiver:
        assert served.dispatch.push(group_event()) == []
        await register(client, receiver, Kind.GROUP)
        served.dispatch.push(group_event(), integration_test=True)
        await served.deliveries.run_due()
        body = orjson.loads(receiver.bodies[0])
        assert body["integration_test_notification"] is True
        assert body["group_dispatches"][0]["meter_ids"] == [METER, OTHER_METER]


async def test_dispatch_push_is_tried_again_every_minute_50_times_in_all() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (served, client), receiving() as receiver:
        await register(client, receiver)
        receiver.statuses = [503] * 100
        (sent,) = served.dispatch.push(event())
        for _ in range(60):
            await served.deliveries.run_due()
            clock.advance(60)
        assert sent.state is State.GIVEN_UP
        assert [one.at_ms for one in sent.tries] == [NOON_MS + number * 60_000 for number in range(50)]


async def test_dispatch_push_comes_late_twice_again_though_answered_or_never() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (served, client), receiving() as receiver:
        await register(client, receiver)
        served.dispatch.push(event(), manner=Manner(delay_s=30))
        served.dispatch.push(event(), manner=Manner(lost=True))
        served.dispatch.push(event(), manner=Manner(copies=2, answers_lost=1))
        assert await served.deliveries.run_due() == 2
        clock.advance(30)
        assert await served.deliveries.run_due() == 1
        clock.advance(30)
        assert await served.deliveries.run_due() == 2
        assert served.deliveries.next_due_ms() is None
        assert [one.state for one in served.deliveries.log] == [State.TAKEN, State.LOST, State.TAKEN, State.TAKEN]


async def test_dispatch_push_50_duplicates_come_in_any_order() -> None:
    async with asking() as (served, client), receiving() as receiver:
        await register(client, receiver)
        old = event(energy_kw=8.0)
        served.dispatch.push(old, manner=Manner(copies=50))
        served.dispatch.push(served.dispatch_book.change(old, energy_kw=3.0))
        assert await served.deliveries.run_due(shuffle=random.Random(1)) == 51
        kw = [orjson.loads(body)["meter_dispatches"][0]["timeslots"][0]["energy_kw"] for body in receiver.bodies]
        assert sorted(kw) == [3.0] + [8.0] * 50
        assert kw[-1] == 8.0


async def test_dispatch_push_of_10_000_meters_with_4_slots_goes_in_one_body() -> None:
    async with asking() as (served, client), receiving() as receiver:
        await register(client, receiver)
        slots = [event(hours).slot for hours in range(4)]
        served.dispatch.push(
            *(Event(kind=Kind.METER, target=meter_id(meter), slot=one) for meter in range(10_000) for one in slots)
        )
        await served.deliveries.run_due()
        dispatches = orjson.loads(receiver.bodies[0])["meter_dispatches"]
        assert (len(dispatches), {len(one["timeslots"]) for one in dispatches}) == (10_000, {4})


async def test_dispatch_integration_test_tells_what_the_url_answered() -> None:
    async with asking() as (_, client), receiving() as receiver:
        body = {"meter_dispatches": [{"meter_id": METER, "timeslots": [event().slot]}]}
        assert (await client.send("POST", f"{HOOK}/integration_test", body)).status == 404
        await register(client, receiver)
        assert (await client.send("POST", f"{HOOK}/integration_test", {"meter_dispatches": []})).status == 400
        receiver.statuses = [418]
        told = (await client.send("POST", f"{HOOK}/integration_test", body)).json()
        assert (told["http_status"], told["body"]) == (418, "heard")
        assert orjson.loads(receiver.bodies[0])["integration_test_notification"] is True
        await client.send("PUT", HOOK, {"url": "http://127.0.0.1:9/hook"})
        told = (await client.send("POST", f"{HOOK}/integration_test", body)).json()
        assert (told["http_status"], told["received_time"]) == (None, None)
        assert told["error_message"]


async def test_dispatch_communication_test_makes_events_only_once_approved() -> None:
    async with asking() as (_, client):
        path = "/v2/dispatch/meter/communication_test"
        asked = {
            "start_time": "2026-11-20T14:00:00Z",
            "end_time": "2026-11-20T15:00:00Z",
            "program": "CEC-DSGS",
            "meter_uuids": [METER],
            "test_event": True,
        }
        dry = await client.send("POST", path, asked)
        assert (dry.status, dry.json()["approved"], dry.json()["meter_count"]) == (201, False, 1)
        assert (await search(client))["results"] == []
        await client.send("POST", path, asked | {"approved": True})
        (found,) = (await search(client))["results"][0]["timeslots"]
        assert (found["communication_test"], found["dispatch_event_types"]) == (True, ["capacity-test"])
        assert (await client.send("POST", path, asked | {"meter_uuids": [METER] * 1001})).status == 400
