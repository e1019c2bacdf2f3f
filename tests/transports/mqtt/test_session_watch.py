"""What a client can tell of its session at the broker, and of another client that uses its id."""

import pytest

from gateway.domain.types import Now
from gateway.transports.mqtt.session_watch import CUTS, LASTING_MS, TOLD_MS, Lapse, Loss, SessionWatch

DAY_S = 86_400


def at(s: float) -> Now:
    return Now(utc_ms=1_900_000_000_000 + round(s * 1000), mono_ms=round(s * 1000))


def accepted(watch: SessionWatch, s: float, *, resumed: bool = True, granted_s: int = DAY_S) -> Lapse | None:
    return watch.accepted(at(s), resumed=resumed, granted_s=granted_s)


def cut_after(watch: SessionWatch, s: float, lasting_s: float) -> bool:
    accepted(watch, s)
    return watch.lost(Loss.CUT, at(s + lasting_s))


@pytest.mark.parametrize(("away_s", "lapse"), [(10, Lapse.MISSING), (DAY_S - 1, Lapse.MISSING), (DAY_S, Lapse.EXPIRED)])
def test_session_that_was_there_and_is_not_resumed_is_a_lapse(away_s: float, lapse: Lapse) -> None:
    watch = SessionWatch(DAY_S)
    assert accepted(watch, 0, resumed=False) is None
    watch.lost(Loss.OTHER, at(100))
    assert accepted(watch, 100 + away_s, resumed=False) is lapse
    assert watch.lapses[lapse] == 1
    assert watch.warnings("control", "gateway-control", at(101 + away_s))
    assert not watch.lapsed(at(100 + away_s + TOLD_MS / 1000))


def test_session_that_is_resumed_is_no_lapse() -> None:
    watch = SessionWatch(DAY_S)
    for s in (0, 10, 20):
        assert accepted(watch, s, resumed=s > 0) is None
        watch.lost(Loss.OTHER, at(s + 5))
    assert watch.warnings("control", "g", at(30)) == []


def test_session_that_no_broker_keeps_is_never_missed() -> None:
    watch = SessionWatch(0)
    for s in (0, 10, 20):
        assert accepted(watch, s, resumed=False) is None


def test_session_is_expected_for_as_long_as_the_broker_said_last() -> None:
    watch = SessionWatch(DAY_S)
    accepted(watch, 0, resumed=False, granted_s=60)
    watch.lost(Loss.OTHER, at(10))
    assert accepted(watch, 71, resumed=False) is Lapse.EXPIRED
    watch.lost(Loss.OTHER, at(80))
    assert accepted(watch, 3_000, resumed=False) is Lapse.MISSING


def test_connections_cut_soon_again_and_again_look_like_another_client() -> None:
    watch = SessionWatch(DAY_S)
    assert [cut_after(watch, 10.0 * n, 1) for n in range(CUTS + 1)] == [*[False] * (CUTS - 1), True, False]
    assert (
        "another client uses the client id gateway-control?" in watch.warnings("control", "gateway-control", at(50))[0]
    )


def test_first_cut_of_a_long_connection_counts_as_the_first() -> None:
    watch = SessionWatch(DAY_S)
    assert not cut_after(watch, 0, 1)
    assert not cut_after(watch, 10, LASTING_MS / 1000)
    assert not cut_after(watch, 1_000, 1)
    assert cut_after(watch, 1_010, 1)


def test_broker_that_is_away_in_between_explains_the_cuts() -> None:
    watch = SessionWatch(DAY_S)
    for n in range(10):
        assert not cut_after(watch, 10.0 * n, 1)
        watch.failed()


def test_takeover_that_the_broker_names_needs_no_second() -> None:
    watch = SessionWatch(DAY_S)
    accepted(watch, 0)
    assert watch.lost(Loss.TAKEN_OVER, at(10_000))


def test_connection_that_lasts_ends_the_suspicion() -> None:
    watch = SessionWatch(DAY_S)
    for n in range(CUTS):
        cut_after(watch, 10.0 * n, 1)
    accepted(watch, 100)
    assert watch.contested(at(100 + LASTING_MS / 1000 - 1))
    assert not watch.contested(at(100 + LASTING_MS / 1000))
