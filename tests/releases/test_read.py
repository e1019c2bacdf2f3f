"""What today's tree makes of the states that earlier releases stored: everything is there, as they showed it.

`truth.json` is what the release itself showed of the same states, see `make`. A vector is never edited by hand.
"""

from pathlib import Path

import pytest

from tests.releases import truth
from tests.releases.trees import HERE, RELEASES, unpacked

pytestmark = pytest.mark.e2e

MADE = sorted(path.parent.name for path in RELEASES.glob("*/truth.json"))


@pytest.mark.parametrize("state", truth.STATES)
@pytest.mark.parametrize("release", MADE)
async def test_stored_state_of_a_release_is_read_whole(tmp_path: Path, release: str, state: str) -> None:
    known = truth.stored(release)
    seen = await truth.seen_by(HERE, release, state, known, tmp_path)
    for part in ("shown", "tables"):
        assert truth.lacking(known[state][part], seen[part]) == []
    assert seen["errors"] == known[state]["errors"]


@pytest.mark.parametrize("release", MADE)
def test_stored_states_of_a_release_hold_everything_that_a_reader_may_lose(release: str) -> None:
    known = truth.stored(release)
    shown, tables = known["killed"]["shown"], known["killed"]["tables"]
    assert {event["state"] for event in shown["events"]} == {"active", "cancelled", "completed", "scheduled"}
    assert {event["kind"] for event in shown["events"]} == {"real", "capacity_test", "dry_run"}
    assert {row["device"] for row in tables["controlled"]} >= set(known["late"]["steered"])
    assert len({device["device"]["profile"] for device in shown["devices"]}) > 3
    assert {row["body"]["reason"] for row in tables["holds"]} == {"opt_out", "storm"}
    assert shown["quarantine"]["quarantined"]
    assert any(row["body"] for row in tables["prior"])
    assert tables["reserves"]
    assert len({(row["file"], row["row"]) for row in tables["cursor"]}) > 1, "receivers stand at different places"
    assert tables["parked"]
    assert any(row["quality"] == "late" for row in shown["intervals"].values())
    assert known["stopped"]["shown"]["stopped"]
    assert known["stopped"]["tables"]["deliveries"]


@pytest.mark.parametrize("release", MADE)
async def test_release_runs_from_its_archive_and_not_from_this_tree(tmp_path: Path, release: str) -> None:
    old = unpacked(release, tmp_path)
    for tree in (old, HERE):
        code, output = await tree.cli("profiles", "check", "--help")
        assert code == 0, output
        assert await tree.where() == tree.root / "gateway"


def test_lacking_tells_what_is_gone_or_other_and_passes_over_what_is_new() -> None:
    known = {"a": [1, {"b": None}], "c": "x"}
    assert truth.lacking(known, {"a": [1, {"b": None, "new": 1}], "c": "x", "more": 2}) == []
    assert truth.lacking(known, {"a": [1, {"b": 0}]}) == ["/a/1/b: None became 0", "/c: gone"]
    assert truth.lacking(known, {"a": [1], "c": "x"}) == ["/a: [1, {'b': None}] became [1]"]
