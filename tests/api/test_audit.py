"""The audit trail over REST."""

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
