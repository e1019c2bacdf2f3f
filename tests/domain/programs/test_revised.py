"""The same inputs have one digest, and what is different in others is told in words."""

from gateway.domain.programs.revised import InputKind, differences, digest_of

BEFORE = {
    InputKind.INTERVALS: {"battery-1": "a1", "battery-2": "b1"},
    InputKind.PRICES: {"north 2025-05-06 19:00": ""},
    InputKind.PROGRAM: {"version": "2025"},
}


def test_inputs_have_one_digest_in_whatever_order_they_are_named() -> None:
    turned = {kind: dict(reversed([*values.items()])) for kind, values in reversed([*BEFORE.items()])}
    assert digest_of(turned) == digest_of(BEFORE)
    other = BEFORE | {InputKind.INTERVALS: {"battery-1": "a1", "battery-2": "b2"}}
    assert digest_of(other) != digest_of(BEFORE)
    assert differences(BEFORE, turned) == []


def test_what_changed_is_told_by_its_name_and_a_value_that_can_be_read_is_told_with_it() -> None:
    now = {
        InputKind.INTERVALS: {"battery-1": "a2", "battery-3": "c1"},
        InputKind.PRICES: {"north 2025-05-06 19:00": "51.75706"},
        InputKind.PROGRAM: {"version": "2025"},
    }
    assert differences(BEFORE, now) == [
        "intervals of battery-1, battery-2, battery-3 changed",
        "prices: north 2025-05-06 19:00 was missing and is 51.75706",
    ]


def test_many_that_changed_are_counted() -> None:
    now = {InputKind.DAYS: {f"home-{n}": "x" for n in range(9)}}
    assert differences({}, now) == ["days before of home-0, home-1, home-2 and 6 more changed"]
