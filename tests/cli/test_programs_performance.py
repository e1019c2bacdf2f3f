"""`gateway programs performance` and `gateway programs event`: what a gateway says, in one line of each figure."""

import json
from typing import Any

from tests.cli.test_cli import Script, daemon, run

__all__ = ["daemon"]

FIGURE: dict[str, Any] = {
    "name": "", "energy_wh": 7_000, "asked_wh": 8_000, "short_wh": 1_000, "short_because": {"late_start": 1_000},
    "covered_pct": 100.0,
    "value": {"status": "provisional (price missing)", "value": None, "low": "1.00", "high": "3.00", "currency": "USD"},
}  # fmt: skip
EVENT: dict[str, Any] = {
    "event": "e", "program": "p", "version": "one", "start": "2026-07-10T01:00:00Z", "end": "2026-07-10T02:00:00Z",
    "revision": 2, "because": ["intervals of a changed"], "estimate": True, "figure": FIGURE,
    "rests_on_unverified": [{"path": "rates.july", "evidence": "unverified", "source": "none"}],
}  # fmt: skip


def test_events_of_a_program_are_listed_with_their_value_as_a_range(daemon: Script) -> None:
    daemon.says({"events": [EVENT], "next": "1 e"})
    told = run("programs", "performance", "p", "--from", "2026-07-01T00:00:00Z", "--url", daemon.url)
    assert told.exit_code == 0, told.output
    assert "1.00 to 3.00 USD" in told.stdout
    assert "late_start 1000" in told.stdout
    assert "there are more: --after '1 e'" in told.stdout
    (asked,) = daemon.asked
    assert asked[1] == "/v1/programs/p/performance?from=2026-07-01T00%3A00%3A00Z&limit=50"


def test_an_event_says_why_it_was_revised_and_what_is_not_verified(daemon: Script) -> None:
    home = FIGURE | {"name": "home-1", "value": None}
    daemon.says(EVENT | {"figures": [home], "next": None})
    told = run("programs", "event", "e", "--level", "site", "--revision", "2", "--url", daemon.url)
    assert told.exit_code == 0, told.output
    for words in ("revised: intervals of a changed", "not verified: rates.july", "an estimate", "home-1"):
        assert words in told.stdout
    (asked,) = daemon.asked
    assert asked[1] == "/v1/events/e/performance?level=site&revision=2&limit=100"
    daemon.says(EVENT | {"figures": [], "next": None})
    assert json.loads(run("programs", "event", "e", "--url", daemon.url, "--json").stdout)["revision"] == 2
