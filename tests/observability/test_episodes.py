"""Refusals become few lines: one per reason, and one when they are over."""

from gateway.observability.episodes import OTHER, QUIET_MS, REASONS_MAX, Episode, FewLines


def test_episode_each_reason_is_new_once_until_it_is_over() -> None:
    episode = Episode()
    assert [episode.add(reason, 2, 0) for reason in ("a", "a", "b", "a")] == [True, False, True, False]
    assert episode.over(QUIET_MS - 1) == {}
    assert episode.over(QUIET_MS) == {"a": 6, "b": 2}
    assert episode.over(2 * QUIET_MS) == {}
    assert episode.add("a", 1, 2 * QUIET_MS) is True


def test_episode_lasts_while_refusals_go_on() -> None:
    episode = Episode()
    for i in range(10):
        episode.add("a", 1, i * (QUIET_MS - 1))
        assert episode.over((i + 1) * (QUIET_MS - 1)) == {}
    assert episode.over(10 * QUIET_MS) == {"a": 10}


def test_episode_keeps_a_bounded_number_of_reasons() -> None:
    episode = Episode()
    new = [episode.add(f"r{i}", 1, 0) for i in range(10 * REASONS_MAX)]
    assert sum(new) == REASONS_MAX + 1
    counts = episode.over(QUIET_MS)
    assert (len(counts), counts[OTHER]) == (REASONS_MAX + 1, 9 * REASONS_MAX)


def test_few_lines_go_through_each_span_and_the_rest_are_counted_by_kind() -> None:
    lines = FewLines(most=3, span_ms=1_000)
    assert [lines.allow("lost", 0) for _ in range(5)] == [True, True, True, False, False]
    assert [lines.allow("up", 500) for _ in range(4)] == [True, True, True, False]
    assert lines.held(999) == {}
    assert lines.held(1_000) == {"lost": 2, "up": 1}
    assert lines.held(1_000) == {}
    assert lines.allow("lost", 1_000) is True


def test_few_lines_of_a_span_that_nobody_asked_about_are_still_counted() -> None:
    lines = FewLines(most=1, span_ms=1_000)
    assert [lines.allow("lost", t) for t in (0, 1, 2_000, 2_001)] == [True, False, True, False]
    assert lines.held(3_000) == {"lost": 2}


def test_few_lines_that_all_went_through_leave_nothing_to_tell() -> None:
    lines = FewLines(most=2, span_ms=1_000)
    assert lines.allow("lost", 0)
    assert lines.held(5_000) == {}
