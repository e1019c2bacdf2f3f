"""Who may propose, approve and send changes at the aggregator."""

import pytest

from gateway.domain.access import Scope
from gateway.domain.programs.outbox import OutboxRow, WriteKind
from tests.api.test_access import callers, header
from tests.api.test_app import Rig, rig

EVERYBODY = callers(
    ann=[Scope.PROGRAMS, Scope.ADMIN], bob=[Scope.ADMIN], programs=[Scope.PROGRAMS], reader=[Scope.READ]
)  # fmt: skip


async def disenroll(r: Rig) -> int:
    """A row that Ann proposed."""
    assert r.parts is not None
    row = OutboxRow(
        number=0, kind=WriteKind.DISENROLL, subject="meter", after={"start_date": "2035-01-01"}, proposed_by="ann",
        proposed_ms=0,
    )  # fmt: skip
    (added,) = await r.parts.outbox.store.add([row])
    return added.number


async def test_leave_is_given_by_another_named_caller_alone() -> None:
    async with rig(callers=EVERYBODY) as r:
        number = await disenroll(r)
        told = await r.ask("GET", "/v1/outbox", headers=header("reader"))
        (row,) = told["entries"]
        assert (row["needs_approval"], row["differences"][0]["after"]) == (True, "2035-01-01")
        body = {"rows": [number]}
        # a name that a request says of itself is nobody's
        refused = await r.ask("POST", "/v1/outbox/approvals?by=bob", json=body, headers=header("ann"), status=400)
        assert refused["problems"] == [f"row {number}: ann proposed it; another person gives leave"]
        told = await r.ask("POST", "/v1/outbox/approvals", json=body, headers=header("bob"))
        assert (told["entries"][0]["approved_by"], told["entries"][0]["needs_approval"]) == ("bob", False)


async def test_leave_needs_callers_with_names() -> None:
    async with rig() as r:
        body = {"rows": [await disenroll(r)]}
        refused = await r.ask("POST", "/v1/outbox/approvals?by=bob", json=body, status=403)
        assert "a named caller" in refused["error"]


async def test_who_may_not_see_customers_sends_no_meters() -> None:
    async with rig(callers=EVERYBODY) as r:
        body = {"kind": "meter", "dry_run": False}
        refused = await r.ask("POST", "/v1/outbox/runs", json=body, headers=header("programs"), status=403)
        assert refused["error"] == "the scope pii is required"
        shown = await r.ask("POST", "/v1/outbox/runs", json={"kind": "meter"}, headers=header("programs"))
        assert (shown["dry_run"], shown["would_send"]) == (True, 0)


async def test_who_is_no_admin_moves_no_dispatch() -> None:
    async with rig(callers=EVERYBODY) as r:
        body = {"kind": "webhook", "dry_run": False}
        refused = await r.ask("POST", "/v1/outbox/runs", json=body, headers=header("programs"), status=403)
        assert refused["error"] == "the scope admin is required"
        refused = await r.ask("POST", "/v1/outbox/runs", json=body, headers=header("ann"), status=400)
        assert refused["problems"] == ["signals.leap and leap.account: not both are configured"]


async def test_without_an_account_nothing_is_proposed() -> None:
    async with rig() as r:
        body = {"kind": "idle", "rows": [{"subject": "meter", "after": {"start_date": "2035-01-01"}}]}
        refused = await r.ask("POST", "/v1/outbox", json=body, status=400)
        assert refused["problems"] == ["leap.account: none is configured"]
        assert (await r.ask("GET", "/v1/outbox", params={"kind": "x"}, status=400))["problems"][0].startswith("kind: ")


@pytest.mark.parametrize(
    "wrong", [{"confirm": True}, {"confirm": "3"}, {"dry_run": 0}, {"dry_run": "no"}, {"confirm": 1.0}]
)
async def test_what_lets_a_run_go_is_said_as_what_it_is(wrong: dict[str, object]) -> None:
    async with rig(callers=EVERYBODY) as r:
        body = {"kind": "idle"} | wrong
        refused = await r.ask("POST", "/v1/outbox/runs", json=body, headers=header("programs"), status=400)
        assert refused["problems"][0].startswith(next(iter(wrong)))


@pytest.mark.parametrize("wrong", [True, "1", 1.5])
async def test_rows_are_named_by_whole_numbers(wrong: object) -> None:
    async with rig(callers=EVERYBODY) as r:
        await r.ask("POST", "/v1/outbox/approvals", json={"rows": [wrong]}, headers=header("bob"), status=400)
