"""The door for webhooks over REST: proven, kept before it is answered, once, and refused with where and why."""

from typing import Any

import orjson
import pytest

from gateway.domain.events.book import Answer
from gateway.domain.events.request import EventRequest
from gateway.services.events.intake import Dispatcher
from tests.api.test_app import Rig, rig
from tests.signals.webhook.builders import BEARER, axle_event, dispatch, dispatches, signed

AXLE, VOLTUS = "/v1/signals/webhook/axle", "/v1/signals/webhook/voltus"
HOUR_MS = 3_600_000


def now_ms(r: Rig) -> int:
    return r.world.clock.now().utc_ms


async def to_axle(r: Rig, status: int = 200, *, at_s: int | None = None, headers: Any = None, **event: Any) -> Any:
    now = now_ms(r)
    body = orjson.dumps(axle_event(at_ms=now + HOUR_MS, issued_ms=event.pop("issued_ms", now), **event))
    shown = headers or signed(body, now // 1000 if at_s is None else at_s)
    return await r.ask("POST", AXLE, data=body, headers=shown, status=status)


async def to_voltus(r: Rig, *events: dict[str, Any], status: int = 200) -> Any:
    return await r.ask("POST", VOLTUS, data=dispatches(*events), headers=BEARER, status=status)


def outcomes(answer: Any) -> list[tuple[str, str]]:
    return [(event["id"], event["outcome"]) for event in answer["events"]]


async def kept(r: Rig, path: str) -> list[Any]:
    found: list[Any] = (await r.ask("GET", path))["messages"]
    return found


async def test_event_is_taken_changed_and_cancelled_under_the_name_of_its_peer() -> None:
    async with rig() as r:
        at = now_ms(r) + HOUR_MS
        assert outcomes(await to_voltus(r, dispatch(at_ms=at))) == [("e", "accepted")]
        shown = await r.ask("GET", "/v1/dispatch-events/e")
        assert (shown["source"], shown["state"], shown["target_w"]) == ("voltus", "scheduled", 3_000.0)
        assert outcomes(await to_voltus(r, dispatch(at_ms=at))) == [("e", "duplicate")]
        more = dispatch(at_ms=at, revision=1, sites=[{"id": "s1", "commitment": 4}])
        assert outcomes(await to_voltus(r, more)) == [("e", "accepted")]
        assert outcomes(await to_voltus(r, dispatch(at_ms=at))) == [("e", "superseded")]
        gone = {"id": "e", "modification_number": 2, "authorized": False}
        assert outcomes(await to_voltus(r, gone)) == [("e", "accepted")]
        assert (await r.ask("GET", "/v1/dispatch-events/e"))["state"] == "cancelled"
        assert [one["outcome"] for one in await kept(r, VOLTUS)] == ["done"] * 5


async def test_cancellation_that_comes_before_its_event_wins() -> None:
    async with rig() as r:
        gone = {"id": "e", "modification_number": 2, "authorized": False}
        assert outcomes(await to_voltus(r, gone)) == [("e", "accepted")]
        late = dispatch(at_ms=now_ms(r) + HOUR_MS, revision=1)
        assert outcomes(await to_voltus(r, late)) == [("e", "superseded")]


async def test_cancellation_at_the_order_of_what_it_cancels_wins_and_nothing_at_it_revives_the_event() -> None:
    async with rig() as r:
        issued = {"issued_ms": now_ms(r)}
        assert outcomes(await to_axle(r, **issued)) == [("e", "accepted")]
        assert outcomes(await to_axle(r, active=False, **issued)) == [("e", "accepted")]
        assert outcomes(await to_axle(r, active=False, **issued)) == [("e", "accepted")], "as the first time"
        at_s = now_ms(r) // 1000 + 1
        assert outcomes(await to_axle(r, at_s=at_s, active=False, **issued)) == [("e", "duplicate")]
        assert outcomes(await to_axle(r, at_s=at_s, **issued)) == [("e", "superseded")]
        assert (await r.ask("GET", "/v1/dispatch-events/e"))["state"] == "cancelled"


async def test_bad_body_is_refused_with_pointer_and_reason_and_kept_and_its_siblings_are_taken() -> None:
    async with rig() as r:
        at = now_ms(r) + HOUR_MS
        told = await to_voltus(r, dispatch("a", at_ms=at), dispatch("b", at_ms=at, program="x"), status=400)
        assert outcomes(told) == [("a", "accepted"), ("b", "rejected")]
        assert told["problems"] == ['/dispatches/1/program: "x" is none of "demand-response"']
        told = await r.ask("POST", VOLTUS, data=b"\xff{", headers=BEARER, status=400)
        assert told["problems"][0].startswith("(body): not JSON")
        newest, first = await kept(r, VOLTUS)
        assert (newest["outcome"], newest["text"], newest["base64"]) == ("refused", None, "/3s=")
        assert first["problems"] == ['/dispatches/1/program: "x" is none of "demand-response"']


async def test_repetition_of_a_signed_message_is_answered_as_the_first_time_and_has_no_effect() -> None:
    async with rig() as r:
        body = orjson.dumps(axle_event(at_ms=now_ms(r) + HOUR_MS, issued_ms=now_ms(r)))
        headers = signed(body, now_ms(r) // 1000)
        first = await r.ask("POST", AXLE, data=body, headers=headers)
        assert outcomes(first) == [("e", "accepted")]
        assert await r.ask("POST", AXLE, data=body, headers=headers) == first
        assert len(await kept(r, AXLE)) == 1
        assert (await r.ask("GET", "/v1/signals/webhook"))["webhooks"][0]["messages"]["again"] == 1


@pytest.mark.parametrize(("by_s", "told"), [(-301, "too long ago"), (302, "ahead of our clock")])
async def test_message_that_was_signed_at_another_time_is_refused(by_s: int, told: str) -> None:
    async with rig() as r:
        refused = await to_axle(r, 401, at_s=now_ms(r) // 1000 + by_s)
        assert told in refused["problems"][0]
        assert await kept(r, AXLE) == []
        assert outcomes(await to_axle(r, at_s=now_ms(r) // 1000 - 299)) == [("e", "accepted")]


async def test_message_that_nobody_signed_is_refused_and_not_kept() -> None:
    async with rig() as r:
        for headers in ({"Content-Type": "application/json"}, signed(b"{}", now_ms(r) // 1000)):
            assert (await to_axle(r, 401, headers=headers))["events"] == []
        assert await kept(r, AXLE) == []
        assert await r.ask("POST", "/v1/signals/webhook/nobody", data=b"{}", status=404) is not None
        await r.ask("POST", VOLTUS, data=b"x" * 200_000, headers=BEARER, status=413)


async def test_event_that_is_refused_is_told_why_and_one_that_may_pass_is_asked_for_again() -> None:
    async with rig() as r:
        past = dispatch("old", at_ms=now_ms(r) - 2 * HOUR_MS)
        told = await to_voltus(r, past, status=409)
        assert told["events"][0]["reason"] == "expired"
        await r.ask("POST", "/v1/dispatch/stop-all", json={"active": True})
        body = orjson.dumps(axle_event(at_ms=now_ms(r) + HOUR_MS, issued_ms=now_ms(r)))
        headers = signed(body, now_ms(r) // 1000)
        assert (await r.ask("POST", AXLE, data=body, headers=headers, status=503))["problems"] == ["stopped"]
        await r.ask("POST", "/v1/dispatch/stop-all", json={"active": False})
        # the same message again is no repetition of one that had an effect
        assert outcomes(await r.ask("POST", AXLE, data=body, headers=headers)) == [("e", "accepted")]


async def test_peer_that_sends_too_many_messages_is_told_when_to_go_on() -> None:
    async with rig() as r:
        for number in range(601):
            async with r.client.request("POST", VOLTUS, data=b"x", headers=BEARER) as reply:
                assert reply.status == (400 if number < 600 else 429)
        assert int(reply.headers["Retry-After"]) >= 1


async def test_message_that_fails_unforeseen_is_refused_and_holds_back_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit = Dispatcher.submit

    async def failing(self: Dispatcher, request: EventRequest) -> Answer:
        if request.id == "poison":
            raise OverflowError("nobody thought of it")
        return await submit(self, request)

    monkeypatch.setattr(Dispatcher, "submit", failing)
    async with rig() as r:
        at = now_ms(r) + HOUR_MS
        told = await to_voltus(r, dispatch("poison", at_ms=at), status=400)
        assert told["problems"] == ["(body): could not be carried out: OverflowError"]
        assert outcomes(await to_voltus(r, dispatch("fine", at_ms=at))) == [("fine", "accepted")]
        assert [one["outcome"] for one in await kept(r, VOLTUS)] == ["done", "refused"], "none waits for a restart"
