"""The audit trail over REST."""

import re
from pathlib import Path

from tests.api.test_app import rig


async def test_audit_route_tells_who_changed_what_page_by_page() -> None:
    async with rig() as r:
        hold = {"id": "h", "reason": "opt_out", "group": {"ids": ["home-00"]}, "by": "ann"}
        await r.ask("POST", "/v1/exclusions", json=hold)
        await r.ask("DELETE", "/v1/exclusions/h?by=bob")
        await r.ask("POST", "/v1/dispatch/stop-all", json={"active": True, "by": "cid"})
        page = await r.ask("GET", "/v1/audit?limit=2")
        told = [(entry["kind"], entry["by"], entry["door"]) for entry in page["entries"]]
        assert told == [("stop_all", "cid", "rest"), ("hold_lifted", "bob", "rest")]
        assert page["entries"][0]["what"] == {"active": True, "by": "cid"}
        rest = await r.ask("GET", f"/v1/audit?limit=2&after={page['next']}")
        assert [(entry["kind"], entry["by"]) for entry in rest["entries"]] == [("hold_set", "ann")]
        assert rest["next"] is None
        (only,) = (await r.ask("GET", "/v1/audit?kind=hold_set"))["entries"]
        assert only["what"]["id"] == "h"


async def test_audit_route_question_that_is_none_is_refused_with_every_fault() -> None:
    async with rig() as r:
        body = await r.ask("GET", "/v1/audit?from=yesterday&limit=0&who=x&kind=A", status=400)
        assert len(body["problems"]) == 4
        await r.ask("DELETE", "/v1/exclusions/h?by=", status=400)


EVENT = {"id": "e", "kind": "real", "program": "p", "group": {"all": True}, "start": "now", "duration_s": 60,
         "target_w": 100.0}  # fmt: skip


async def test_audit_route_names_who_sent_an_event_or_set_an_exclusion() -> None:
    async with rig() as r:
        await r.ask("POST", "/v1/dispatch-events?by=ann", json=EVENT)
        await r.ask("POST", "/v1/dispatch-events", json=EVENT | {"revision": 1, "target_w": 200.0})
        hold = {"reason": "opt_out", "group": {"all": True}}
        for query, body in (("?by=bob", {"id": "a"}), ("?by=bob", {"id": "b", "by": "cid"}), ("", {"id": "c"})):
            state = await r.ask("POST", f"/v1/exclusions{query}", json=hold | body)
            assert state["by"] == {"a": "bob", "b": "cid", "c": "operator"}[body["id"]]
        entries = (await r.ask("GET", "/v1/audit"))["entries"]
        assert [(entry["kind"], entry["by"]) for entry in entries][::-1] == [
            ("event_accepted", "ann"), ("event_accepted", "rest"),
            ("hold_set", "bob"), ("hold_set", "cid"), ("hold_set", "operator"),
        ]  # fmt: skip


async def test_audit_route_unknown_kind_is_refused_with_the_list_that_the_documents_have() -> None:
    written = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = re.findall(r"`([a-z_]+)`", written.partition("The kinds: ")[2].partition(". ")[0])
    async with rig() as r:
        body = await r.ask("GET", "/v1/audit?kind=bogus", status=400)
        assert body["problems"] == [f"kind: none of {', '.join(listed)}"]
        for kind in listed:
            await r.ask("GET", f"/v1/audit?kind={kind}")
