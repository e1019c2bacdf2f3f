"""Whole numbers of 64 bits keep every bit, although values are floats elsewhere."""

from typing import Any

import pytest

from gateway.profiles.compiled.points import DecodeCounts, PointCodec, Raw
from gateway.profiles.compiled.readings import holds
from gateway.profiles.language.points import Match, Point

HIGH_AND_LOW = (1 << 63) | 1
WORDS = (0x8000, 0, 0, 1)


def held(kind: str, raw: Raw, match: dict[str, Any], **other: Any) -> bool | None:
    place = {"pointer": "/x", "path": "/"} if kind == "integer" else {"register": 1}
    codec = PointCodec("p", Point.model_validate(place | {"type": kind} | other))
    return holds(Match.model_validate({"point": "p"} | match), {"p": codec.decode(raw, {}, DecodeCounts())})


@pytest.mark.parametrize(("kind", "raw"), [("u64", WORDS), ("integer", HIGH_AND_LOW)])
def test_bit_beside_the_highest_is_seen(kind: str, raw: Raw) -> None:
    assert held(kind, raw, {"any_bits": 1}) is True
    assert held(kind, raw, {"any_bits": 2}) is False
    assert held(kind, raw, {"all_bits": HIGH_AND_LOW}) is True
    assert held(kind, raw, {"all_bits": HIGH_AND_LOW | 2}) is False


def test_long_number_equals_itself_alone() -> None:
    assert held("u64", WORDS, {"equals": [HIGH_AND_LOW]}) is True
    assert held("u64", WORDS, {"equals": [HIGH_AND_LOW + 1]}) is False
    assert held("u64", WORDS, {"equals": [HIGH_AND_LOW - 1]}) is False


def test_negative_number_keeps_its_bits() -> None:
    assert held("i64", (0xFFFF, 0, 0, 1), {"equals": [-(1 << 48) + 1]}) is True
    assert held("i64", (0x8000, 0, 0, 1), {"any_bits": 1}) is True


def test_bits_of_a_scaled_number_are_not_guessed() -> None:
    assert held("u64", WORDS, {"any_bits": 1}, scale=10) is None


def test_long_number_is_a_number_like_any_other() -> None:
    assert held("u64", WORDS, {"above": 1e18}) is True
    assert held("u64", WORDS, {"any_bits": 1}, range=[0, 1e18]) is None
