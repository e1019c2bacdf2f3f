"""Platform webhooks: subscriptions, what is sent to them, and how often again."""

import orjson
import pytest

from simulators.aggregator import Manner, State
from simulators.clock import ManualClock
from tests.simulators.aggregator.asking import METER, NOON_MS, aggregator, asking, receiving

HOOKS = "/v1.1/webhooks"
CREATED = "meter.created"
NOBODYS = "77777777-5d0f-4c11-9f5e-8f1d2c3b4a59"


async def test_webhooks_are_created_listed_overwritten_and_deleted() -> None:
    async with asking() as (_, client):
        first = {"receiver_url": "https://one.example", "event_types": [CREATED]}
        created = await client.send("POST", HOOKS, first)
        assert created.status == 200
        path = f"{HOOKS}/{created.json()['webhook_id']}"
        (listed,) = (await client.send("GET", HOOKS)).json()["webhooks"]
        assert listed == first | created.json() | {"headers": []}
        second = {"receiver_url": "https://two.example", "event_types": [], "headers": [{"name": "a", "value": "b"}]}
        assert (await client.send("PUT", path, second)).json() == created.json()
        assert (await client.send("GET", HOOKS)).json()["webhooks"] == [second | created.json()]
        assert "message" in (await client.send("DELETE", path)).json()
        assert (await client.send("DELETE", path)).status == 404
        assert (await client.send("GET", HOOKS)).json() == {"webhooks": []}


@pytest.mark.parametrize("body", [{}, {"receiver_url": "https://one.example"}, {"receiver_url": "", "event_types": []}])
async def test_webhooks_refuse_a_subscription_that_is_not_whole(body: dict[str, object]) -> None:
    async with asking() as (_, client):
        refused = await client.send("POST", HOOKS, body)
        assert (refused.status, refused.json().keys()) == (400, {"error", "message"})


async def test_webhooks_of_an_unknown_id_are_not_found() -> None:
    async with asking() as (_, client):
        body = {"receiver_url": "https://one.example", "event_types": []}
        assert (await client.send("PUT", f"{HOOKS}/{NOBODYS}", body)).status == 404


async def test_webhooks_event_goes_to_its_subscribers_with_an_id_and_is_tried_over_eight_hours() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (served, client), receiving() as receiver:
        await client.send("POST", HOOKS, {"receiver_url": receiver.url, "event_types": [CREATED]})
        assert served.webhooks.tell("meter.enrollment.group.updated") == []
        (sent,) = served.webhooks.tell(CREATED, meter_id=METER, transmission_region="CAISO")
        receiver.statuses = [500] * 20
        while (due_ms := served.deliveries.next_due_ms()) is not None:
            clock.advance((due_ms - clock.utc_ms()) / 1000)
            await served.deliveries.run_due()
        assert sent.state is State.GIVEN_UP
        minutes = [(one.at_ms - NOON_MS) / 60_000 for one in sent.tries]
        assert minutes == [0, 1, 3, 7, 15, 31, 60, 120, 240, 480]
        assert len(set(receiver.bodies)) == 1
        event = orjson.loads(receiver.bodies[0])
        assert event["payload"] == {"webhook_event_type": CREATED, "meter_id": METER, "transmission_region": "CAISO"}
        assert event["webhook_event_id"]


async def test_webhooks_event_may_come_again_behind_a_newer_one() -> None:
    clock = ManualClock(utc_ms=NOON_MS)
    async with asking(aggregator(clock=clock)) as (served, client), receiving() as receiver:
        await client.send("POST", HOOKS, {"receiver_url": receiver.url, "event_types": [CREATED]})
        served.webhooks.tell(CREATED, manner=Manner(copies=2, delay_s=60), n=1)
        served.webhooks.tell(CREATED, n=2)
        await served.deliveries.run_due()
        clock.advance(60)
        await served.deliveries.run_due()
        assert [orjson.loads(body)["payload"]["n"] for body in receiver.bodies] == [2, 1, 1]


async def test_webhooks_test_posts_one_payload_and_tells_what_came_back() -> None:
    async with asking() as (_, client), receiving() as receiver:
        made = await client.send("POST", HOOKS, {"receiver_url": receiver.url, "event_types": []})
        path = f"{HOOKS}/{made.json()['webhook_id']}/test"
        assert (await client.send("POST", path, {"meter_id": METER})).status == 400
        payload = {"webhook_event_type": CREATED, "meter_id": METER, "transmission_region": "CAISO"}
        assert (await client.send("POST", path, payload)).json()["is_successful"] is True
        receiver.statuses = [404]
        told = (await client.send("POST", path, payload)).json()
        assert (told["is_successful"], told["status_code"]) == (False, 404)
