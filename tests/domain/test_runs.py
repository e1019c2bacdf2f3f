"""When the ends of earlier runs make the next one release-only."""

import pytest

from gateway.domain.runs import ENDS_MAX, WITHIN_MS, RunEnd, only_releases
from gateway.domain.types import Now

NOW = Now(utc_ms=1_800_000_000_000, mono_ms=50_000_000)


def end(*, ago_ms: int, boot: str = "one", clock_off_ms: int = 0) -> RunEnd:
    return RunEnd(utc_ms=NOW.utc_ms - ago_ms + clock_off_ms, mono_ms=NOW.mono_ms - ago_ms, boot=boot, why="killed")


@pytest.mark.parametrize(
    ("ages_ms", "wanted"),
    [
        ([], False),
        ([0] * (ENDS_MAX - 1), False),
        ([0] * ENDS_MAX, True),
        ([WITHIN_MS, 1_000, 0], True),
        ([WITHIN_MS + 1, 1_000, 0], False),
        ([WITHIN_MS + 1, WITHIN_MS, 1_000, 0], True),
    ],
)
def test_run_only_releases_after_three_ends_within_ten_minutes(ages_ms: list[int], wanted: bool) -> None:
    assert only_releases([end(ago_ms=ago_ms) for ago_ms in ages_ms], NOW, "one") is wanted


@pytest.mark.parametrize("off_ms", [-86_400_000, 86_400_000])
def test_age_of_an_end_does_not_follow_the_wall_clock_within_one_run_of_the_machine(off_ms: int) -> None:
    ends = [end(ago_ms=1_000, clock_off_ms=off_ms)] * ENDS_MAX
    assert only_releases(ends, NOW, "one")
    assert not only_releases(ends, NOW, "two")


@pytest.mark.parametrize("boots", [("one", "two"), ("", "")])
def test_age_of_an_end_before_a_reboot_is_by_the_wall_clock(boots: tuple[str, str]) -> None:
    before, now = boots
    assert only_releases([end(ago_ms=60_000, boot=before)] * ENDS_MAX, NOW, now)
    assert not only_releases([end(ago_ms=WITHIN_MS + 1, boot=before)] * ENDS_MAX, NOW, now)
