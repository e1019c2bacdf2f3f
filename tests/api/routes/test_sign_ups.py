"""Sign-ups over REST: the link of a customer, webhooks in any order and again, and what somebody has to do."""

import random
from typing import Any

import pytest

from tests.api.test_app import Rig, rig

SECRET = "the-shared-header-0123"
CUSTOMERS = "customer\nc-1\nc-2\n"
SESSION, AUTHORIZATION = "connect_session.updated", "connect_session.authorization_updated"
MARKED = {"X-Leap-Secret": SECRET}


async def heard(r: Rig, kind: str, reference: str, status: str, **other: str) -> None:
    payload = {"webhook_event_type": kind, "partner_reference": reference, "status": status} | other
    answer = await r.client.post(
        "/v1/signals/leap/platform", json={"webhook_event_id": "1", "payload": payload}, headers=MARKED
    )
    assert answer.status == 202


async def customers(r: Rig) -> None:
    await r.ask("POST", "/v1/customers", data=CUSTOMERS, headers={"Content-Type": "text/csv"})


async def test_customer_has_a_link_and_the_state_that_webhooks_say_in_any_order() -> None:
    events: list[tuple[str, str, dict[str, str]]] = [
        (SESSION, "CREATED", {}), (SESSION, "UPDATED", {}), (SESSION, "COMPLETED", {}), (SESSION, "A_NEW_WORD", {}),
        (AUTHORIZATION, "INITIATED", {"utility_name": "PGE"}), (AUTHORIZATION, "FAILED", {"utility_name": "PGE"}),
    ]  # fmt: skip
    async with rig(leap_secret=SECRET) as r:
        await customers(r)
        fresh = await r.ask("GET", "/v1/sign-ups/c-1")
        assert (fresh["state"], fresh["since"], fresh["required_actions"]) == ("none", None, [])
        assert fresh["link"].startswith("https://connect.leap.energy?")
        assert fresh["link"].endswith("&refId=c-1")
        for seed in range(3):
            shuffled = events * 2
            random.Random(seed).shuffle(shuffled)
            for kind, status, other in shuffled:
                await heard(r, kind, "c-1", status, **other)
            found = await r.ask("GET", "/v1/sign-ups/c-1")
            assert (found["state"], found["unknown"]) == ("completed", ["A_NEW_WORD"])
            assert found["authorizations"] == [{"utility": "PGE", "state": "failed", "unknown": []}]
            assert found["required_actions"] == [
                "the authorization at PGE failed: send the link again",
                "the aggregator says what is not known here: A_NEW_WORD",
            ]
        shown = await r.ask("GET", "/v1/customers/c-1")
        assert "the authorization at PGE failed: send the link again" in shown["required_actions"]


async def test_sign_ups_are_listed_page_by_page_also_of_references_that_nobody_knows() -> None:
    async with rig(leap_secret=SECRET) as r:
        await customers(r)
        for reference in ("c-2", "who-is-this", "c-1"):
            await heard(r, SESSION, reference, "CREATED")
        page = await r.ask("GET", "/v1/sign-ups", params={"limit": "2"})
        assert ([one["reference"] for one in page["sign_ups"]], page["next"]) == (["c-1", "c-2"], "c-2")
        page = await r.ask("GET", "/v1/sign-ups", params={"limit": "2", "after": "c-2"})
        assert ([one["reference"] for one in page["sign_ups"]], page["next"]) == (["who-is-this"], None)
        await r.ask("GET", "/v1/sign-ups/who-is-this", status=404)


@pytest.mark.parametrize(
    "payload",
    [
        {"webhook_event_type": SESSION},
        {"webhook_event_type": SESSION, "partner_reference": "a@b.example", "status": "CREATED"},
    ],
)  # fmt: skip
async def test_webhook_that_cannot_be_read_is_answered_and_counted(payload: dict[str, Any]) -> None:
    async with rig(leap_secret=SECRET) as r:
        answer = await r.client.post("/v1/signals/leap/platform", json={"payload": payload}, headers=MARKED)
        assert answer.status == 202
        answer = await r.client.post("/v1/signals/leap/platform", data=b"\x00{", headers=MARKED)
        assert answer.status == 202
        assert (await r.ask("GET", "/v1/sign-ups"))["sign_ups"] == []
        assert r.parts is not None
        counts = {dict(one.labels)["outcome"]: one.value for one in r.parts.sign_ups.samples()}
        assert counts == {"noted": 0, "known": 0, "other": 0, "unreadable": 2}


async def test_webhook_without_the_shared_header_says_nothing() -> None:
    async with rig(leap_secret=SECRET) as r:
        body = {"payload": {"webhook_event_type": SESSION, "partner_reference": "c-1", "status": "COMPLETED"}}
        for headers in ({}, {"X-Leap-Secret": "wrong-secret-of-somebody"}):
            answer = await r.client.post("/v1/signals/leap/platform", json=body, headers=headers)
            assert answer.status == 401
        assert (await r.ask("GET", "/v1/sign-ups"))["sign_ups"] == []
