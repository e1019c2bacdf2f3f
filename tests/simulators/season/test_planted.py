"""A planted street shows what it says was planted, and sound homes show nothing."""

from dataclasses import fields

import numpy as np
import pytest

from simulators.homes import Floats
from simulators.season.causes import STRENGTHS, Cause, Planted, Spare
from simulators.season.planted import Street, planted_street
from simulators.season.planted_play import Seen

SEED = 4
MIDDLE = 1


@pytest.fixture(scope="module")
def street() -> Street:
    return planted_street(SEED)


def delivered(seen: Seen) -> Floats:
    """Measured over commanded energy per home and event; NaN where nothing was told or not all was heard."""
    told_wh = np.nansum(seen.commanded_w, axis=2) / 12
    given_wh = np.nansum(seen.measured_wh, axis=2)
    whole = (seen.coverage == 1) & (told_wh > 100)
    return np.where(whole, given_wh / np.maximum(told_wh, 1), np.nan)


def cool(street: Street) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray(np.nan_to_num(street.seen.temperature_c, nan=99) < 36)


def of(street: Street, cause: Cause, strength: int = MIDDLE) -> list[Planted]:
    return [one for one in street.planted if one.cause is cause and one.strength == strength]


def after(street: Street, values: Floats, cause: Cause, strength: int = MIDDLE) -> Floats:
    """Values of the homes that have a cause, from when on they have it, on cool days."""
    kept = np.where(cool(street), values, np.nan)
    return np.concatenate([kept[one.home, one.since :] for one in of(street, cause, strength)])


def test_a_seed_gives_the_same_street_and_another_seed_another(street: Street) -> None:
    again, other = planted_street(SEED), planted_street(SEED + 1)
    for name in (field.name for field in fields(Seen)):
        assert np.array_equal(getattr(street.seen, name), getattr(again.seen, name), equal_nan=True), name
    assert again.planted == street.planted != other.planted


def test_every_cause_is_planted_at_three_strengths_and_nobody_twice(street: Street) -> None:
    assert {(one.cause, one.strength) for one in street.planted} == {(c, s) for c in Cause for s in range(3)}
    homes = [one.home for one in street.planted] + list(street.spared)
    assert len(set(homes)) == len(homes)
    assert set(street.spared.values()) == set(Spare)


def test_sound_homes_give_what_they_are_told(street: Street) -> None:
    ratio = delivered(street.seen)
    named = {one.home for one in street.planted} | set(street.spared)
    sound = [home for home in range(len(ratio)) if home not in named]
    ratio = np.where(cool(street), ratio, np.nan)[sound]
    assert np.nanmean(ratio) == pytest.approx(0.99, abs=0.01)
    assert np.nanquantile(ratio, 0.01) > 0.93


@pytest.mark.parametrize(
    ("cause", "least", "most"),
    [
        (Cause.POWER_DERATE, 0.75, 1.0),
        (Cause.CAPACITY_FADE, 0.7, 0.85),
        (Cause.LATE, 0.88, 0.94),
        (Cause.SIGN_REVERSED, -0.6, 0.0),
        (Cause.METER_REVERSED, -0.36, -0.3),
        (Cause.UNIT_OFF, 0.46, 0.52),
        (Cause.DOES_NOTHING, 0.05, 0.28),
        (Cause.INTERMITTENT, 0.2, 0.8),
        (Cause.WORSE_SINCE_UPDATE, 0.76, 0.83),
    ],
)
def test_a_cause_shows_in_what_is_delivered(street: Street, cause: Cause, least: float, most: float) -> None:
    ratio = after(street, delivered(street.seen), cause)
    assert least <= np.nanquantile(ratio, 0.25)
    assert np.nanquantile(ratio, 0.75) <= most


@pytest.mark.parametrize("cause", [c for c in Cause if c is not Cause.DEAD_COMMS])
def test_before_it_begins_a_cause_does_not_show(cause: Cause) -> None:
    street = planted_street(SEED, each=8)
    ratio = np.where(cool(street), delivered(street.seen), np.nan)
    before = np.concatenate([ratio[one.home, : one.since] for one in of(street, cause)])
    assert np.nanquantile(before, 0.05) > 0.9


def test_a_stronger_cause_takes_more(street: Street) -> None:
    for cause in set(Cause) - {Cause.DEAD_COMMS}:
        mean = [np.nanmean(after(street, delivered(street.seen), cause, strength)) for strength in range(3)]
        assert mean == sorted(mean, reverse=True), cause


def test_dead_comms_are_heard_no_more_and_acknowledge_nothing(street: Street) -> None:
    seen = street.seen
    for strength, part in enumerate(STRENGTHS[Cause.DEAD_COMMS]):
        assert np.nanmax(after(street, seen.coverage, Cause.DEAD_COMMS, strength)) <= 1 - 0.85 * part
        assert np.nanmax(after(street, seen.acknowledged, Cause.DEAD_COMMS, strength)) <= 1 - 0.85 * part
    assert np.isnan(after(street, seen.soc_end_pct, Cause.DEAD_COMMS)).all()


def test_a_reversed_battery_charges_and_a_reversed_meter_only_says_so(street: Street) -> None:
    fallen_pct = street.seen.soc_start_pct - street.seen.soc_end_pct
    assert np.nanmax(after(street, fallen_pct, Cause.SIGN_REVERSED)) <= 0
    assert np.nanmean(after(street, fallen_pct, Cause.METER_REVERSED)) > 20


def test_worse_since_an_update_begins_with_it(street: Street) -> None:
    for strength in range(3):
        for one in of(street, Cause.WORSE_SINCE_UPDATE, strength):
            firmware = street.seen.firmware[one.home]
            assert firmware[one.since] > firmware[one.since - 1]


def test_heat_takes_from_all_of_a_neighbourhood(street: Street) -> None:
    """Where power is the limit, and not the energy."""
    seen = street.seen
    sound = np.ones(len(seen.rating_w), dtype=np.bool_)
    sound[[one.home for one in street.planted]] = False
    full = (seen.expected_w > 0.99 * seen.rating_w[:, None]) & sound[:, None]
    ratio = np.where(full, delivered(seen), np.nan)
    hot = np.nan_to_num(seen.temperature_c) > 42
    assert hot.any(axis=1).mean() > 0.5
    assert np.nanquantile(ratio[hot], 0.95) < 0.9


def test_who_is_spared_has_an_excuse_that_can_be_seen(street: Street) -> None:
    seen = street.seen

    def homes(reason: Spare) -> list[int]:
        return [home for home, why in street.spared.items() if why is reason]

    assert (seen.reserve_pct[homes(Spare.RESERVE), -1] == 80).all()
    assert (seen.opted_out[homes(Spare.OPT_OUTS)].mean(axis=1) > 0.2).all()
    assert (seen.rating_w[homes(Spare.SMALL)] < 2_000).all()
    assert (np.nanmedian(seen.soc_start_pct[homes(Spare.LITTLE_SUN)], axis=1) < 60).mean() > 0.5
    assert (seen.coverage[homes(Spare.GAPS)].mean(axis=1) < 0.8).all()
    assert (seen.days_enrolled[homes(Spare.NEW)].max(axis=1) < 14).all()


def test_nothing_is_expected_of_a_home_before_it_joins_nor_told_to_one_that_left_the_event(street: Street) -> None:
    seen = street.seen
    assert (seen.expected_w[seen.days_enrolled < 0] == 0).all()
    told_wh = np.nansum(seen.commanded_w, axis=2)
    assert (told_wh[seen.days_enrolled < 0] == 0).all()
    part = told_wh[seen.opted_out] / np.maximum(12 * 2 * seen.expected_w[seen.opted_out], 1)
    assert part.max() < 1


def test_what_is_silent_is_unknown_and_not_nothing(street: Street) -> None:
    silent = street.seen.coverage == 0
    assert silent.any()
    assert np.isnan(street.seen.measured_wh[silent]).all()
    assert np.isnan(street.seen.grid_wh[silent]).all()


def test_sound_homes_are_counted_by_the_months_in_which_they_took_part(street: Street) -> None:
    months = 6
    assert 0.8 * months * 900 < street.sound_home_months < months * 910


def test_a_street_too_small_for_what_is_planted_is_refused() -> None:
    with pytest.raises(ValueError, match="100 homes are too few"):
        planted_street(SEED, homes=100)
