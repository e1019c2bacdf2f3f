"""Enrollments, customers and consents over REST."""

import json
import logging
from pathlib import Path

import pytest

from tests.api.routes.test_telemetry import street
from tests.api.test_app import Rig, rig
from tests.builders.energy_batches import T0
from tests.services.programs.stores import BASE, CONSENT, table

CSV = {"Content-Type": "text/csv"}
PERIOD = {
    "delivery_period_start_date_time": "2026-11-01T00:00:00Z",
    "delivery_period_end_date_time": "2027-05-01T00:00:00Z",
}
HOME = BASE | PERIOD | {"device": "home-00"}
PERIOD_OF_STREET = {
    "delivery_period_start_date_time": "2020-01-01T00:00:00Z", "delivery_period_end_date_time": "2090-01-01T00:00:00Z",
}  # fmt: skip
HELD = {"customer": "c-1", "device": "home-00", "held_since": "2026-01-01T00:00:00Z", "payee": "p-1",
        "paid_since": "2026-01-01T00:00:00Z"}  # fmt: skip
PERSON = {
    "end_customer_name": "Canary Nightingale", "end_customer_email": "canary@nest.example", "street_1": "1 Canary Row",
    "city": "Canaryville", "postal_code": "94107", "electric_service_account_number": "CANARY-77",
}  # fmt: skip


async def imported(r: Rig, what: str, *rows: dict[str, str], status: int = 200) -> dict[str, object]:
    found = await r.ask("POST", f"/v1/{what}", data=table(*rows).encode(), headers=CSV, status=status)
    assert isinstance(found, dict)
    return found


async def enrolled(r: Rig) -> None:
    await imported(r, "enrollments", HOME)
    await imported(r, "customers", HELD | PERSON)
    await imported(r, "consents", CONSENT)


async def test_a_home_is_enrolled_and_shown_with_why_it_takes_part() -> None:
    async with rig() as r:
        report = await imported(r, "enrollments", HOME, HOME | {"device": "home-01", "enrollment_status": "NAPPING"})
        assert (report["rows"], report["changed"], report["rejected_total"]) == (2, 2, 0)
        shown = await r.ask("GET", "/v1/enrollments/home-00")
        assert [(m["program"], m["takes_part"], m["left_out"]) for m in shown["memberships"]] == [
            ("dsgs", False, "consent_missing")
        ]
        await imported(r, "customers", HELD)
        await imported(r, "consents", CONSENT)
        shown = await r.ask("GET", "/v1/enrollments/home-00")
        assert shown["memberships"][0]["takes_part"] is True
        other = await r.ask("GET", "/v1/enrollments/home-01")
        assert (other["enrollments"][0]["status"], other["enrollments"][0]["peer_status"]) == ("unknown", "NAPPING")
        await r.ask("GET", "/v1/enrollments/nobody", status=404)


async def test_a_table_says_which_of_its_programs_nobody_knows_and_so_does_readiness() -> None:
    async with rig() as r:
        report = await imported(r, "enrollments", HOME, HOME | {"program": "test"})
        assert report["unknown_programs"] == ["dsgs"]
        assert (await imported(r, "consents", CONSENT | {"program": "test"}))["unknown_programs"] == []
        assert r.enrollments is not None
        [warning] = r.enrollments.warnings()
        assert warning.endswith("neither configuration nor programs_dir knows: dsgs")
        await r.ask("GET", "/v1/participation/nobody-names-it", status=404)
        assert (await r.ask("GET", "/v1/participation/dsgs"))["enrollment"] == "unknown"


async def test_the_audit_trail_names_a_commit_and_the_commit_lists_what_it_changed() -> None:
    async with rig() as r:
        await imported(r, "enrollments", HOME, HOME | {"device": "home-01"})
        [entry] = (await r.ask("GET", "/v1/audit?kind=facts_changed"))["entries"]
        what = entry["what"]
        assert (entry["door"], what["kinds"]) == ("rest", {"enrollment": 2})
        first = await r.ask("GET", f"/v1/enrollment-changes/{what['batch']}?limit=1")
        rest = await r.ask("GET", f"/v1/enrollment-changes/{what['batch']}?offset={first['next']}")
        assert (first["sha256"], rest["next"]) == (what["sha256"], None)
        found = [*first["changes"], *rest["changes"]]
        assert [(one["key"][1], one["before"]) for one in found] == [("home-00", None), ("home-01", None)]
        await r.ask("GET", "/v1/enrollment-changes/none", status=404)


async def test_enrollments_come_page_by_page_and_by_program_or_subject() -> None:
    rows = [HOME | {"device": f"home-{n:02}"} for n in range(3)] + [HOME | {"program": "ra"}]
    async with rig() as r:
        await imported(r, "enrollments", *rows)
        first = await r.ask("GET", "/v1/enrollments?limit=3")
        rest = await r.ask("GET", f"/v1/enrollments?after={first['next']}")
        assert [len(first["enrollments"]), len(rest["enrollments"]), rest["next"]] == [3, 1, None]
        of_ra = await r.ask("GET", "/v1/enrollments?program=ra")
        assert [row["subject"] for row in of_ra["enrollments"]] == ["home-00"]
        of_home = await r.ask("GET", "/v1/enrollments?subject=home-00")
        assert [row["program"] for row in of_home["enrollments"]] == ["dsgs", "ra"]
        await r.ask("GET", "/v1/enrollments?subject=a/b", status=400)


async def test_bad_rows_are_named_with_line_column_and_value() -> None:
    async with rig() as r:
        text = "\n".join(json.dumps(row) for row in (HOME, HOME | {"device": "no space"}))
        headers = {"Content-Type": "application/x-ndjson"}
        report = await r.ask("POST", "/v1/enrollments", data=text.encode(), headers=headers)
        assert report["rejected_total"] == 1
        [row] = report["rejected"]
        assert (row["line"], row["faults"][0]["column"], row["faults"][0]["value"]) == (2, "device", "no space")
        refused = await imported(r, "enrollments", HOME | {"colour": "red"}, status=400)
        assert refused["problems"] == ["line 1: unknown column 'colour'"]
        await r.ask("POST", "/v1/enrollments", data=b"\xff\xfe", headers=CSV, status=400)


async def test_customers_are_references_with_what_they_have_and_what_to_do() -> None:
    async with rig() as r:
        await enrolled(r)
        listed = await r.ask("GET", "/v1/customers?limit=1")
        assert [(one["customer"], one["erased"]) for one in listed["customers"]] == [("c-1", None)]
        shown = await r.ask("GET", "/v1/customers/c-1")
        assert shown["personal_data"] is True
        assert [one["subject"] for one in shown["holdings"]] == ["home-00"]
        assert [(one["payee"], one["role"]) for one in shown["payees"]] == [("p-1", "owner")]
        assert shown["required_actions"] == ["no meter id of home-00"]
        await r.ask("GET", "/v1/customers/nobody", status=404)


async def test_an_erased_customer_leaves_everything_else_under_the_reference() -> None:
    async with rig() as r:
        await enrolled(r)
        assert await r.ask("DELETE", "/v1/customers/c-1") == {"customer": "c-1", "had": True}
        assert await r.ask("DELETE", "/v1/customers/c-1") == {"customer": "c-1", "had": False}
        await r.ask("DELETE", "/v1/customers/nobody", status=404)
        shown = await r.ask("GET", "/v1/customers/c-1")
        assert (shown["personal_data"], len(shown["holdings"]), len(shown["consents"])) == (False, 1, 1)
        assert (await r.ask("GET", "/v1/customers"))["customers"][0]["erased"] is not None
        assert (await r.ask("GET", "/v1/enrollments/home-00"))["memberships"][0]["takes_part"] is True


async def test_consents_are_listed_with_their_evidence() -> None:
    withdrawal = {"customer": "c-1", "program": "dsgs", "withdrawn": "2026-12-01T00:00:00Z", "by": "owner"}
    async with rig() as r:
        await imported(r, "consents", CONSENT, CONSENT | {"customer": "c-2"}, withdrawal)
        found = await r.ask("GET", "/v1/consents?customer=c-1")
        assert [(one["given"], one["withdrawn"], one["by"]) for one in found["consents"]] == [
            ("2026-04-01T00:00:00Z", None, "x"), (None, "2026-12-01T00:00:00Z", "owner"),
        ]  # fmt: skip
        assert found["consents"][0]["document_sha256"] == CONSENT["document_sha256"]


async def test_no_answer_and_no_log_line_repeats_personal_data(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bad = {"customer": "c-9", "end_customer_email": "canary without at", "postal_code": "CANARY"}
    async with rig() as r:
        await enrolled(r)
        told = [await imported(r, "customers", HELD | PERSON, bad, PERSON | {"customer": "c-8"})]
        told += [await imported(r, "customers", {"customer": "c-9", "canary": "Canary"}, status=400)]
        for path in ("customers", "customers/c-1", "consents", "enrollments", "enrollments/home-00", "audit"):
            told.append(await r.ask("GET", f"/v1/{path}"))
        told.append(await r.ask("GET", "/metrics"))
        told.append(await r.ask("DELETE", "/v1/customers/c-1"))
    answers, logged = json.dumps(told), caplog.text + "".join(str(vars(record)) for record in caplog.records)
    for value in (*PERSON.values(), "canary without at"):
        assert value not in answers
        assert value not in logged


async def test_participation_says_who_takes_part_in_the_running_event_and_why_others_do_not() -> None:
    async with rig() as r:
        for number in (0, 1):
            home, customer = f"home-0{number}", f"c-{number}"
            await imported(r, "enrollments", HOME | {"device": home, "program": "test"})
            await imported(r, "customers", HELD | {"device": home, "customer": customer})
        await imported(r, "consents", CONSENT | {"customer": "c-0", "program": "test"})
        before = await r.ask("GET", "/v1/participation/test")
        assert (before["event"], before["total"], before["enrollment"]) == (None, 2, "enforce")
        await r.world.submit("evening", s=600, target_w=1_000)
        await r.world.go(3)
        found = await r.ask("GET", "/v1/participation/test")
        assert (found["event"]["id"], found["event"]["state"], found["total"]) == ("evening", "active", 3)
        assert found["left_out"] == {"consent_missing": 2}
        assert [(one["device"], one["takes_part"], one["left_out"]) for one in found["devices"]] == [
            ("home-00", True, None), ("home-01", False, "consent_missing"), ("home-02", False, "consent_missing"),
        ]  # fmt: skip
        page = await r.ask("GET", "/v1/participation/test?offset=1&limit=1")
        assert ([one["device"] for one in page["devices"]], page["next"]) == (["home-01"], 2)
        await r.ask("GET", "/v1/participation/nothing", status=404)


async def test_participation_says_why_a_home_that_is_enrolled_could_give_nothing() -> None:
    async with rig() as r:
        await imported(r, "enrollments", HOME | {"program": "test"})
        await imported(r, "customers", HELD)
        await imported(r, "consents", CONSENT | {"program": "test"})
        r.world.homes.soc_pct[0] = 20.0
        await r.world.go(5)
        [home] = (await r.ask("GET", "/v1/participation/test"))["devices"]
        assert (home["takes_part"], home["left_out"]) == (False, None)
        assert "reserve" in home["limits"]


async def test_deadlines_are_told_by_day_with_how_many_are_open() -> None:
    open_ = HOME | {"enrollment_status": "PENDING", "reasons": "HAS_NOMINATIONS",
                    "enrollment_deadline_date_time": "2027-01-20T08:00:00Z"}  # fmt: skip
    async with rig() as r:
        await imported(r, "enrollments", open_, open_ | {"device": "home-01"})
        [found] = (await r.ask("GET", "/v1/deadlines"))["deadlines"]
        assert (found["at"], found["what"], found["count"], found["some"], found["lacking"]) == (
            "2027-01-20T08:00:00Z", "enrollment", 2, ["home-00", "home-01"], {"HAS_NOMINATIONS": 2},
        )  # fmt: skip
        assert (await r.ask("GET", "/v1/deadlines?days=4"))["deadlines"] == []
        await r.ask("GET", "/v1/deadlines?days=500", status=400)


async def test_eligibility_says_which_devices_a_program_may_have_and_why_not_the_others(tmp_path: Path) -> None:
    async with street(tmp_path, more=1) as s:
        r = s.rig
        s.rig.world.clock.utc = T0 + 2 * 86_400_000
        await imported(r, "enrollments", HOME | PERIOD_OF_STREET | {"device": "bat-1", "program": "other"})
        found = await r.ask("GET", "/v1/eligibility/test")
        assert (found["total"], found["days"], found["next"]) == (4, 30, None)
        assert {one["device"]: one["reasons"] for one in found["devices"]} == {
            "bat-0": ["telemetry"], "bat-1": ["telemetry", "exclusive"], "bat-2": ["telemetry"],
            "home-03": ["telemetry"],
        }  # fmt: skip
        [first] = (await r.ask("GET", "/v1/eligibility/other?limit=1"))["devices"]
        assert (first["eligible"], first["power_kw"], first["capacity_kwh"]) == (True, 5.0, 10.0)
        assert first["measured_pct"] == pytest.approx(12 * 5 / (30 * 24 * 60) * 100, abs=0.01)
        await r.ask("GET", "/v1/eligibility/nothing", status=404)


async def test_a_device_shows_what_the_enrollment_of_its_meter_says_now() -> None:
    row = HOME | {"meter_id": "m-1", "market_group_id": "g-1", "rate_key": "ri-2024", "dispatch_option": "DAILY",
                  "rate_locked": "2024-05-31T04:00:00Z"}  # fmt: skip
    async with rig() as r:
        await imported(r, "enrollments", row, row | {"since": "2027-03-01T00:00:00Z", "market_group_id": "g-2"})
        for name in ("home-00", "m-1"):
            [shown] = (await r.ask("GET", f"/v1/enrollments/{name}"))["memberships"]
            assert (shown["market_group"], shown["rate_key"], shown["dispatch_option"], shown["delivery_period"]) == (
                "g-1", "ri-2024", "daily", "DSGS_MAY_JUL",
            )  # fmt: skip
