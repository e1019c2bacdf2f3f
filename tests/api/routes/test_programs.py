"""`/v1/programs`: the rules that are known here, what they leave to be dispatched, and what an event broke."""

from pathlib import Path
from typing import Any

import pytest

from gateway.programs.compile import compile_program
from gateway.programs.loader import LoadedProgram, load_programs, parse_program
from gateway.programs.terms import terms_of
from gateway.schemas.interval_rows import rfc3339
from gateway.services.events.program_rules import ProgramRules
from tests.api.test_app import rig

SHIPPED = load_programs(Path(__file__).parents[3] / "config" / "programs")
DAY_MS = 86_400_000
HOUR_MS = 3_600_000

TAIL = "evidence: reported, source: page}"
WINTER = f"""\
language: 1
program: winter
title: A program of the tests
pricing: none
zone: UTC
sources: {{page: A page that is read}}
versions:
  - version: one
    from: 2027-01-01
    evidence: verified
    source: page
    rules:
      window: {{value: [{{from: "16:00", until: "21:00"}}], effect: refuse, {TAIL}
      notice: {{value: {{hours: 3}}, effect: warn, {TAIL}
      events: {{value: {{max: 2, per: day}}, effect: refuse, {TAIL}
      hours: {{value: {{max: 3, per: month}}, effect: warn, {TAIL}
    measurement:
      point: {{value: battery_ac, {TAIL}
      interval_length_s: {{value: 900, {TAIL}
    performance:
      baseline: {{value: none, {TAIL}
      formula: {{value: energy, {TAIL}
"""
"""In force when the clock of these tests begins, at 08:00 UTC on 15 January 2027."""


def loaded(text: str = WINTER) -> dict[str, LoadedProgram]:
    document = parse_program(text, name="winter.yaml")
    return {
        "winter": LoadedProgram(
            document=document, program=compile_program(document), terms=terms_of(document), digest="0123456789ab"
        )
    }


def event(name: str, start_ms: int, *, s: int = 3_600) -> dict[str, Any]:
    return {"id": name, "revision": 1, "kind": "real", "program": "winter", "group": {"all": True},
            "start": rfc3339(start_ms), "duration_s": s, "target_w": 2_000.0}  # fmt: skip


async def test_programs_that_ship_are_listed_and_shown_with_every_value() -> None:
    async with rig(programs=SHIPPED) as r:
        rows = (await r.ask("GET", "/v1/programs"))["programs"]
        assert {row["program"] for row in rows} == set(SHIPPED)
        in_force = {row["program"]: row["in_force"] for row in rows}
        assert (in_force["dsgs-option3"], in_force["ct-ess"]) == (None, "active-only"), "it is January 2027"
        shown = await r.ask("GET", "/v1/programs/dsgs-option3")
        assert shown["rules"]["versions"][0]["rules"]["window"]["evidence"] == "verified"
        assert (await r.ask("GET", "/v1/programs/none", status=404))["error"] == "no such program"


async def test_a_gateway_without_programs_lists_none() -> None:
    async with rig() as r:
        assert await r.ask("GET", "/v1/programs") == {"programs": []}


async def test_allowed_tells_when_and_what_is_left_of_counts_and_hours() -> None:
    async with rig(programs=loaded()) as r:
        now_ms = r.world.clock.utc
        evening_ms = now_ms + 8 * HOUR_MS
        await r.ask("POST", "/v1/dispatch-events", json=event("e1", evening_ms))
        query = {"from": rfc3339(now_ms), "to": rfc3339(now_ms + DAY_MS)}
        found = await r.ask("GET", "/v1/programs/winter/allowed", params=query)
        assert found["spans"] == [
            {"start": "2027-01-15T16:00:00Z", "end": "2027-01-15T21:00:00Z", "version": "one",
             "notice_by": "2027-01-15T13:00:00Z"}
        ]  # fmt: skip
        told = [(one["rule"], one["per"], one["start"][:10], one["used"], one["left"]) for one in found["left"]]
        assert told == [
            ("events", "day", "2027-01-15", 1, 1),
            ("events", "day", "2027-01-16", 0, 2),
            ("hours", "month", "2027-01-01", 1, 2),
        ]
        await r.ask("POST", "/v1/dispatch-events", json=event("e2", evening_ms + 3 * HOUR_MS))
        found = await r.ask("GET", "/v1/programs/winter/allowed", params=query)
        assert found["spans"] == [], "both events of the day are planned"
        week = await r.ask("GET", "/v1/programs/winter/allowed")
        assert len(week["spans"]) == 6


async def test_allowed_tells_what_energy_events_of_higher_rank_leave() -> None:
    async with rig(programs=loaded()) as r:
        assert (await r.ask("GET", "/v1/programs/winter/allowed"))["energy"] is None, "no tick yet"
        await r.world.go(2)
        evening_ms = r.world.clock.utc + 8 * HOUR_MS
        first = event("first", evening_ms + HOUR_MS) | {"program": "other", "priority": 1, "target_w": 3_000.0}
        await r.ask("POST", "/v1/dispatch-events", json=first)
        await r.ask("POST", "/v1/dispatch-events", json=event("e1", evening_ms) | {"target_w": None})
        found = await r.ask("GET", "/v1/programs/winter/allowed")
        (one,) = found["energy"]
        envelope = r.world.queries.envelope
        assert envelope is not None
        assert (one["event"], one["asked_wh"], one["yields"]) == ("e1", None, False)
        assert one["left_wh"] == pytest.approx(float(envelope.deliverable_wh.sum()) - 3_000, abs=1)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"from": "2027-01-15T00:00:00Z", "to": "2027-01-15T00:00:00Z"}, "to"),
        ({"from": "2027-01-15T00:00:00Z", "to": "2027-04-15T00:00:00Z"}, "to"),
        ({"from": "9000-01-15T00:00:00Z"}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"since": "2027-01-15T00:00:00Z"}, "since"),
    ],
)
async def test_allowed_refuses_a_time_that_cannot_be_asked_about(query: dict[str, str], path: str) -> None:
    async with rig(programs=loaded()) as r:
        answer = await r.ask("GET", "/v1/programs/winter/allowed", params=query, status=400)
        assert answer["problems"][0].startswith(f"{path}: ")
        await r.ask("GET", "/v1/programs/none/allowed", status=404)


async def test_an_event_from_the_command_line_outside_the_rules_is_refused_with_the_rule_in_words() -> None:
    async with rig(programs=loaded()) as r:
        refused = event("early", r.world.clock.utc + 7 * HOUR_MS)
        answer = await r.ask("POST", "/v1/dispatch-events", json=refused, status=409)
        assert (answer["outcome"], answer["reason"]) == ("rejected", "program_rules")
        assert answer["warnings"][0].startswith("rule window of winter one (reported): 16:00 to 21:00 in UTC;")


async def test_an_event_that_goes_outside_known_rules_is_marked_so_also_after_a_restart() -> None:
    async with rig(programs=loaded()) as r:
        late = event("late", r.world.clock.utc + 8 * HOUR_MS + 60_000) | {"duration_s": 3 * 3_600 + 60}
        r.world.clock.advance(s=6 * 3_600)
        answer = await r.ask("POST", "/v1/dispatch-events", json=late)
        assert len(answer["warnings"]) == 2
        for _ in range(2):
            shown = await r.ask("GET", "/v1/dispatch-events/late")
            assert shown["outside_known_rules"] is True
            told = [(one["rule"], one["effect"], one["evidence"]) for one in shown["broken_rules"]]
            assert told == [("notice", "warn", "reported"), ("hours", "warn", "reported")]
            r.world.dispatcher.rules = ProgramRules(r.world.rules, store=r.world.journal)
        inside = event("inside", r.world.clock.utc + 27 * HOUR_MS, s=600)
        await r.ask("POST", "/v1/dispatch-events", json=inside | {"program": "other"})
        shown = await r.ask("GET", "/v1/dispatch-events/inside")
        assert (shown["outside_known_rules"], shown["broken_rules"]) == (False, [])


async def test_an_event_tells_from_when_energy_is_kept_for_it_and_by_which_rules() -> None:
    kept = f"""\
    preparation:
      keep_h: {{value: 5, {TAIL}
      charge_from_pv: {{value: true, {TAIL}
    performance:
"""
    async with rig(programs=loaded(WINTER.replace("    performance:\n", kept))) as r:
        start_ms = r.world.clock.utc + 8 * HOUR_MS
        await r.ask("POST", "/v1/dispatch-events", json=event("e", start_ms))
        shown = await r.ask("GET", "/v1/dispatch-events/e")
        known = {"version": "winter one", "evidence": "reported", "source": "page"}
        whole = {
            "kept_from": "2027-01-15T11:00:00Z", "kept_until": "2027-01-15T16:00:00Z",
            "charges_from_pv": True, "grid_charging": [],
            "rules": [
                {"rule": "keep_h", **known,
                 "says": "energy is kept for 5 h before an event; meanwhile a home buys what its battery would have "
                         "given it"},
                {"rule": "charge_from_pv", **known, "says": "batteries may charge from PV meanwhile"},
            ],
        }  # fmt: skip
        assert shown["preparation"] == whole
        own = event("own", start_ms) | {"program": "other", "prepare_s": 600, "precharge": True}
        await r.ask("POST", "/v1/dispatch-events", json=own)
        shown = await r.ask("GET", "/v1/dispatch-events/own")
        span = ["2027-01-15T15:50:00Z", "2027-01-15T16:00:00Z"]
        assert shown["preparation"] == {
            "kept_from": span[0], "kept_until": span[1], "charges_from_pv": True, "grid_charging": [span], "rules": [],
        }  # fmt: skip
        await r.ask("DELETE", "/v1/dispatch-events/own")
        assert (await r.ask("GET", "/v1/dispatch-events/own"))["preparation"] is None


async def test_an_event_that_a_rule_holds_is_shown_without_progress() -> None:
    text = WINTER.replace('"16:00", until: "21:00"}], effect: refuse', '"08:10", until: "21:00"}], effect: clip')
    async with rig(programs=loaded(text)) as r:
        await r.world.go(2)
        await r.ask("POST", "/v1/dispatch-events", json=event("e", r.world.clock.utc))
        await r.world.go(30)
        shown = await r.ask("GET", "/v1/dispatch-events/e")
        assert (shown["state"], shown["delivered_w"], shown["outside_known_rules"]) == ("active", None, True)
        assert [one["effect"] for one in shown["broken_rules"]] == ["clip", "warn"]
