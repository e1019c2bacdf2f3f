"""Refusals become few lines: one per reason, and one when they are over."""

from gateway.observability.episodes import OTHER, QUIET_MS, REASONS_MAX, Episode


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
