"""What counts of a slot: webhooks and searches in any order, late and twice."""

import random

import pytest

from gateway.signals.leap.slot_book import HINT_WAIT_MS, SlotBook, Took
from gateway.signals.leap.slots import DispatchSlot
from tests.signals.leap.bodies import HOUR, T0, one, slots_of
from tests.signals.leap.bodies import body as body_of


def now_is(book: SlotBook, slot: DispatchSlot) -> DispatchSlot:
    known = book.get(slot.key)
    assert known is not None
    return known.slot


FIRST, SECOND, GONE = one("e", energy_kw=8), one("e", energy_kw=5), one("e", cancelled=True)


def test_webhooks_replace_each_other_until_a_search_has_spoken() -> None:
    book = SlotBook()
    assert [book.webhook(FIRST, 1), book.webhook(SECOND, 2), book.webhook(SECOND, 3), book.webhook(GONE, 4)] == [
        Took.NEW, Took.CHANGED, Took.SAME, Took.CHANGED,
    ]  # fmt: skip
    assert now_is(book, FIRST).cancelled


def test_a_late_retry_of_an_older_body_does_not_undo_what_a_newer_search_said() -> None:
    book = SlotBook()
    book.webhook(FIRST, 1)
    assert book.search(SECOND, 10) is Took.CHANGED
    assert book.webhook(FIRST, 20) is Took.HINT
    assert now_is(book, FIRST) == SECOND
    assert len(book.hints()) == 1
    assert book.search(SECOND, 30) is Took.SAME
    assert book.hints() == []


def test_a_hint_takes_effect_when_search_says_the_same() -> None:
    book = SlotBook()
    book.search(FIRST, 1)
    book.webhook(GONE, 5)
    assert not now_is(book, FIRST).cancelled
    assert book.search(GONE, 6) is Took.CHANGED
    assert now_is(book, FIRST).cancelled


def test_a_hint_takes_effect_when_no_search_can_be_had() -> None:
    book = SlotBook()
    book.search(FIRST, 1)
    book.webhook(SECOND, 5)
    assert book.settle(5 + HINT_WAIT_MS - 1) == 0
    assert book.settle(5 + HINT_WAIT_MS) == 1
    assert now_is(book, FIRST) == SECOND
    assert book.webhook(FIRST, 6 + HINT_WAIT_MS) is Took.CHANGED


def test_an_answer_that_was_asked_for_before_a_webhook_came_is_outdated() -> None:
    book = SlotBook()
    book.webhook(FIRST, 1)
    book.webhook(SECOND, 20)
    assert book.search(FIRST, 10) is Took.OUTDATED
    assert now_is(book, FIRST) == SECOND


def test_what_search_does_not_show_is_counted_and_not_cancelled() -> None:
    book = SlotBook()
    for name in ("a", "b"):
        book.webhook(one(name), 1)
    book.search(one("a"), 10)
    assert book.hidden("meter", T0, T0 + 2 * HOUR, 10) == 1
    assert not now_is(book, one("b")).cancelled


def test_a_test_of_the_interface_touches_no_real_slot() -> None:
    book = SlotBook()
    book.webhook(FIRST, 1)
    for test in slots_of(body_of({"m": [{"meter_event_id": FIRST.event_id, "cancelled": True}]},
                                 integration_test_notification=True)):  # fmt: skip
        book.webhook(test, 2)
    assert now_is(book, FIRST) == FIRST


def test_a_cancellation_by_id_keeps_the_times_that_are_known() -> None:
    book = SlotBook()
    book.webhook(FIRST, 1)
    bare = slots_of(body_of({"m": [{"meter_event_id": FIRST.event_id, "cancelled": True}]}))[0]
    book.webhook(bare, 2)
    assert (now_is(book, FIRST).end_ms, now_is(book, FIRST).cancelled) == (FIRST.end_ms, True)
    assert book.forget(FIRST.end_ms + 1) == [FIRST.key]


@pytest.mark.parametrize("seed", range(20))
def test_duplicates_in_any_order_end_where_the_last_search_is(seed: int) -> None:
    rng = random.Random(seed)
    book = SlotBook()
    messages = [rng.choice([FIRST, SECOND, GONE]) for _ in range(50)]
    for at, message in enumerate(messages):
        book.webhook(message, 10 * at)
        if rng.random() < 0.2:
            book.search(SECOND, 10 * at + 5)
    book.search(SECOND, 1_000)
    assert now_is(book, FIRST) == SECOND
    assert book.hints() == []
