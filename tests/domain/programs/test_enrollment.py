"""Membership follows from the facts and the instant, whatever the order in which facts came."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.programs.enrollment import TOUCHED_MAX, ConsentState, EnrollmentBook, LeftOut, in_force
from gateway.domain.programs.facts import (
    Consent,
    DeliveryPeriod,
    Enrollment,
    EnrollmentStatus,
    Fact,
    Holding,
    MeterDevice,
    OwnerPreference,
    Payee,
    PayeeRole,
    Preference,
    Withdrawal,
)
from gateway.domain.types import DeviceId
from tests.domain.programs.stated import (
    DAY_MS,
    PROGRAM,
    SEASON,
    consented,
    device,
    enrolled,
    held,
    meter,
    standing,
    withdrawn,
)

HOMES = ("home-00", "home-01", "home-02")
ACTIVE, PENDING = EnrollmentStatus.ACTIVE, EnrollmentStatus.PENDING


def book_of(facts: Iterable[Fact]) -> EnrollmentBook:
    book = EnrollmentBook()
    for fact in facts:
        book.add(fact)
    return book


def left_out(book: EnrollmentBook, name: str, at_ms: int, program: str = PROGRAM) -> LeftOut:
    of = book.membership(program, at_ms).take(book.numbers([DeviceId(name)]))
    return LeftOut(int(of.left_out[0]))


def member(name: str = "home-00", customer: str = "c-1") -> list[Fact]:
    return [enrolled(device(name)), held(device(name), customer), consented(customer)]


# -- one rule at a time ---------------------------------------------------------------------------------------------


def test_a_home_that_is_active_with_valid_consent_takes_part() -> None:
    assert left_out(book_of(member()), "home-00", DAY_MS) is LeftOut.NOT


def test_a_home_that_nobody_enrolled_does_not_take_part() -> None:
    assert left_out(book_of(member()), "home-9", DAY_MS) is LeftOut.CONSENT_MISSING


def test_an_enrollment_is_for_its_program_alone() -> None:
    assert (
        left_out(book_of([*member(), consented("c-1", program="ra")]), "home-00", DAY_MS, "ra") is LeftOut.NOT_ENROLLED
    )


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (EnrollmentStatus.CANDIDATE, LeftOut.NOT_ACTIVE),
        (EnrollmentStatus.PENDING, LeftOut.NOT_ACTIVE),
        (EnrollmentStatus.ELIGIBLE, LeftOut.NOT_ACTIVE),
        (EnrollmentStatus.INELIGIBLE, LeftOut.INELIGIBLE),
        (EnrollmentStatus.UNKNOWN, LeftOut.STATUS_UNKNOWN),
    ],
)
def test_a_home_that_is_not_active_does_not_take_part_and_is_mismatched(status: EnrollmentStatus, why: LeftOut) -> None:
    book = book_of([*member(), enrolled(device("home-00"), status, revision=9)])
    assert left_out(book, "home-00", DAY_MS) is why
    assert book.membership(PROGRAM, DAY_MS).mismatched.tolist() == [True]


def test_a_home_without_consent_is_never_mismatched() -> None:
    book = book_of([enrolled(device("home-00"), PENDING), held(device("home-00"), "c-1")])
    assert book.membership(PROGRAM, DAY_MS).mismatched.tolist() == [False]


def test_an_enrollment_is_for_its_delivery_period() -> None:
    may_jul = DeliveryPeriod(name="may_jul", from_ms=0, until_ms=10 * DAY_MS)
    aug_oct = DeliveryPeriod(name="aug_oct", from_ms=10 * DAY_MS, until_ms=20 * DAY_MS)
    facts: list[Fact] = [
        enrolled(device("home-00"), ACTIVE, period=may_jul),
        enrolled(device("home-00"), PENDING, period=aug_oct, from_ms=10 * DAY_MS, revision=5),
        held(device("home-00"), "c-1"),
        consented("c-1"),
    ]
    book = book_of(facts)
    assert left_out(book, "home-00", 10 * DAY_MS - 1) is LeftOut.NOT
    assert left_out(book, "home-00", 10 * DAY_MS) is LeftOut.NOT_ACTIVE
    assert left_out(book, "home-00", 20 * DAY_MS) is LeftOut.NOT_ENROLLED


def test_what_is_stated_before_a_delivery_period_holds_from_its_beginning() -> None:
    later = DeliveryPeriod(name="later", from_ms=10 * DAY_MS, until_ms=20 * DAY_MS)
    book = book_of([enrolled(device("home-00"), period=later, from_ms=0), *member()[1:]])
    assert left_out(book, "home-00", 9 * DAY_MS) is LeftOut.NOT_ENROLLED
    assert left_out(book, "home-00", 10 * DAY_MS) is LeftOut.NOT


def test_a_correction_counts_and_what_came_late_of_it_does_not() -> None:
    book = book_of(
        [*member(), enrolled(device("home-00"), PENDING, revision=8), enrolled(device("home-00"), revision=7)]
    )
    assert left_out(book, "home-00", DAY_MS) is LeftOut.NOT_ACTIVE


def test_consent_ends_when_it_expires() -> None:
    facts = [*member(), consented("c-1", expires_ms=5 * DAY_MS, revision=7)]
    assert left_out(book_of(facts), "home-00", 5 * DAY_MS - 1) is LeftOut.NOT
    assert left_out(book_of(facts), "home-00", 5 * DAY_MS) is LeftOut.CONSENT_EXPIRED


def test_a_withdrawn_consent_stays_withdrawn_when_it_is_stated_again() -> None:
    book = book_of([*member(), withdrawn("c-1", 5 * DAY_MS), consented("c-1", revision=99)])
    assert left_out(book, "home-00", 5 * DAY_MS - 1) is LeftOut.NOT
    assert left_out(book, "home-00", 5 * DAY_MS) is LeftOut.CONSENT_WITHDRAWN


def test_a_consent_that_is_given_after_a_withdrawal_counts() -> None:
    book = book_of([*member(), withdrawn("c-1", 5 * DAY_MS), consented("c-1", given_ms=6 * DAY_MS, revision=8)])
    assert left_out(book, "home-00", 6 * DAY_MS - 1) is LeftOut.CONSENT_WITHDRAWN
    assert left_out(book, "home-00", 6 * DAY_MS) is LeftOut.NOT


@pytest.mark.parametrize("of", [device("home-00"), meter("m-1")])
@pytest.mark.parametrize("program", ["", PROGRAM])
def test_an_owner_who_sits_out_a_while_is_left_out_for_that_while(of: object, program: str) -> None:
    paused = OwnerPreference(
        subject=device("home-00") if of == device("home-00") else meter("m-1"),
        program=program, from_ms=DAY_MS, until_ms=2 * DAY_MS, preference=Preference.PAUSED, revision=9,
    )  # fmt: skip
    book = book_of([*member(), MeterDevice(meter="m-1", device="home-00", from_ms=0, revision=10), paused])
    assert left_out(book, "home-00", DAY_MS - 1) is LeftOut.NOT
    assert left_out(book, "home-00", DAY_MS) is LeftOut.OPTED_OUT
    assert left_out(book, "home-00", 2 * DAY_MS) is LeftOut.NOT


def test_a_preference_that_nobody_understands_leaves_a_home_out() -> None:
    unknown = OwnerPreference(subject=device("home-00"), from_ms=0, preference=Preference.UNKNOWN, revision=9)
    assert left_out(book_of([*member(), unknown]), "home-00", DAY_MS) is LeftOut.PREFERENCE_UNKNOWN


def test_a_battery_is_enrolled_through_the_meter_it_is_behind_while_it_is_behind_it() -> None:
    facts: list[Fact] = [
        enrolled(meter("m-1")),
        held(meter("m-1"), "c-1"),
        consented("c-1"),
        MeterDevice(meter="m-1", device="home-00", from_ms=DAY_MS, until_ms=2 * DAY_MS, revision=9),
    ]
    book = book_of(facts)
    assert [left_out(book, "home-00", day * DAY_MS) for day in (0, 1, 2)] == [
        LeftOut.CONSENT_MISSING, LeftOut.NOT, LeftOut.CONSENT_MISSING,
    ]  # fmt: skip
    assert book.devices_of(["m-1"], DAY_MS) == [["home-00"]]
    assert book.devices_of(["m-2"], DAY_MS) == [[]]


@pytest.mark.parametrize(("own", "why"), [(None, LeftOut.NOT), (EnrollmentStatus.INELIGIBLE, LeftOut.INELIGIBLE)])
@pytest.mark.parametrize("furthest", ["m-1", "m-2"])
def test_of_several_meters_the_furthest_counts_and_before_them_what_is_stated_of_the_battery_itself(
    furthest: str, own: EnrollmentStatus | None, why: LeftOut
) -> None:
    facts: list[Fact] = [held(device("home-00"), "c-1"), consented("c-1")]
    for number, name in enumerate(("m-1", "m-2")):
        facts.append(MeterDevice(meter=name, device="home-00", from_ms=number, revision=10 + number))
        facts.append(enrolled(meter(name), ACTIVE if name == furthest else PENDING, revision=20 + number))
    if own is not None:
        facts.append(enrolled(device("home-00"), own, revision=30))
    assert left_out(book_of(facts), "home-00", DAY_MS) is why


def test_a_meter_that_changes_hands_in_mid_month_needs_the_consent_of_its_new_customer() -> None:
    facts: list[Fact] = [
        enrolled(meter("m-1")),
        MeterDevice(meter="m-1", device="home-00", from_ms=0, revision=9),
        held(meter("m-1"), "seller"),
        consented("seller"),
        held(meter("m-1"), "buyer", from_ms=15 * DAY_MS, revision=11),
    ]
    assert left_out(book_of(facts), "home-00", 15 * DAY_MS - 1) is LeftOut.NOT
    assert left_out(book_of(facts), "home-00", 15 * DAY_MS) is LeftOut.CONSENT_MISSING
    agreed = [*facts, consented("buyer", given_ms=16 * DAY_MS, revision=12)]
    assert left_out(book_of(agreed), "home-00", 16 * DAY_MS) is LeftOut.NOT


def test_who_is_paid_changes_nothing_about_membership() -> None:
    book = book_of(member())
    payee = Payee(subject=device("home-00"), payee="bank", role=PayeeRole.FINANCIER, from_ms=0, revision=9)
    assert not book.add(payee)
    assert left_out(book, "home-00", DAY_MS) is LeftOut.NOT


BEGIN_MS, END_MS = 3 * DAY_MS, 5 * DAY_MS


@pytest.mark.parametrize(
    "fact",
    [
        consented("c-1", given_ms=BEGIN_MS, expires_ms=END_MS, revision=7),
        enrolled(device("home-00"), period=DeliveryPeriod(name="spell", from_ms=BEGIN_MS, until_ms=END_MS), revision=7),
        held(device("home-00"), "c-1", from_ms=BEGIN_MS, until_ms=END_MS, revision=7),
        MeterDevice(meter="m-1", device="home-00", from_ms=BEGIN_MS, until_ms=END_MS, revision=7),
        OwnerPreference(
            subject=device("home-00"), preference=Preference.PARTICIPATE, from_ms=BEGIN_MS, until_ms=END_MS, revision=7
        ),
        OwnerPreference(
            subject=device("home-00"),
            program=PROGRAM,
            preference=Preference.PARTICIPATE,
            from_ms=BEGIN_MS,
            until_ms=END_MS,
            revision=7,
        ),
    ],
)
def test_membership_holds_from_one_edge_of_a_fact_until_the_next(fact: Fact) -> None:
    book = book_of([*member(), fact])
    for among in (None, book.numbers([DeviceId("home-00")])):
        spans = [book.membership(PROGRAM, day * DAY_MS, among) for day in (2, 3, 4, 5)]
        days = [(span.from_ms // DAY_MS, span.until_ms // DAY_MS) for span in spans]
        assert days == [(0, 3), (3, 5), (3, 5), (5, 100)]


def test_membership_holds_until_consent_is_withdrawn() -> None:
    found = book_of([*member(), withdrawn("c-1", 3 * DAY_MS)]).membership(PROGRAM, 2 * DAY_MS)
    assert found.until_ms == 3 * DAY_MS
    assert found.consent.tolist() == [ConsentState.VALID]


def test_programs_are_those_that_facts_name() -> None:
    assert book_of([*member(), consented("c-1", program="ra")]).programs() == [PROGRAM, "ra"]


# -- any order ------------------------------------------------------------------------------------------------------

instants = st.integers(0, 20)
ends = st.none() | st.integers(1, 25)
subjects = st.sampled_from([*map(device, HOMES), meter("m-1"), meter("m-2")])
customers = st.sampled_from(["c-1", "c-2"])
programs = st.sampled_from([PROGRAM, "ra"])
PERIODS = (
    DeliveryPeriod(name="whole", from_ms=0, until_ms=30),
    DeliveryPeriod(name="first", from_ms=2, until_ms=10),
    DeliveryPeriod(name="second", from_ms=10, until_ms=18),
)


@st.composite
def fact_sets(draw: st.DrawFn, most: int = 25) -> list[Fact]:
    """Facts with revisions of their own: who is behind which meter all the time, and whatever else there is."""
    behind = draw(st.lists(st.tuples(st.sampled_from(["m-1", "m-2"]), st.sampled_from(HOMES)), unique=True, max_size=4))
    made: list[Fact] = [
        MeterDevice(meter=of, device=home, from_ms=0, revision=number + 1) for number, (of, home) in enumerate(behind)
    ]
    for revision in range(len(made) + 1, len(made) + draw(st.integers(0, most)) + 1):
        kind, from_ms, until_ms = draw(st.integers(0, 5)), draw(instants), draw(ends)
        if kind == 0:
            made.append(
                Enrollment(
                    subject=draw(subjects), program=draw(programs), period=draw(st.sampled_from(PERIODS)),
                    from_ms=from_ms, revision=revision, status=draw(st.sampled_from(list(EnrollmentStatus)[1:])),
                )
            )  # fmt: skip
        elif kind == 1:
            made.append(
                OwnerPreference(
                    subject=draw(subjects), program=draw(st.sampled_from(["", PROGRAM])), from_ms=from_ms,
                    until_ms=until_ms, revision=revision, preference=draw(st.sampled_from(Preference)),
                )
            )  # fmt: skip
        elif kind == 2:
            made.append(held(draw(subjects), draw(customers), from_ms=from_ms, until_ms=until_ms, revision=revision))
        elif kind == 3:
            made.append(
                MeterDevice(
                    meter=draw(st.sampled_from(["m-1", "m-2"])), device=draw(st.sampled_from(HOMES)), from_ms=from_ms,
                    until_ms=until_ms, revision=revision,
                )
            )  # fmt: skip
        elif kind == 4:
            made.append(
                consented(
                    draw(customers), given_ms=from_ms, expires_ms=until_ms, revision=revision, program=draw(programs)
                )
            )
        else:
            made.append(withdrawn(draw(customers), from_ms, revision=revision, program=draw(programs)))
    return made


def _answers(book: EnrollmentBook, at_ms: int) -> list[tuple[int, int]]:
    found = []
    for program in (PROGRAM, "ra"):
        of = book.membership(program, at_ms).take(book.numbers([DeviceId(home) for home in HOMES]))
        found += list(zip(of.status.tolist(), of.left_out.tolist(), strict=True))
    return found


@given(facts=fact_sets(), data=st.data())
def test_any_order_of_facts_and_questions_ends_in_the_same_membership_at_every_instant(
    facts: list[Fact], data: st.DataObject
) -> None:
    orders: Sequence[list[Fact]] = [facts, data.draw(st.permutations(facts))]
    books = []
    for order in orders:
        book = EnrollmentBook()
        for fact in order:
            book.add(fact)
            book.membership(PROGRAM, data.draw(instants))
        for fact in order:
            assert not book.add(fact), "what is known changes nothing"
        books.append(book)
    for at_ms in range(31):
        expected = [standing(facts, home, program, at_ms) for program in (PROGRAM, "ra") for home in HOMES]
        for book in books:
            assert _answers(book, at_ms) == expected


@given(facts=fact_sets(), at_ms=instants)
def test_what_is_in_force_of_a_battery_itself_is_what_its_membership_says(facts: list[Fact], at_ms: int) -> None:
    newest = {fact.key: fact for fact in facts if isinstance(fact, Enrollment) and fact.program == PROGRAM}
    alone = [fact for fact in newest.values() if fact.subject == device("home-00")]
    found = in_force(alone, at_ms)
    of = book_of(alone).membership(PROGRAM, at_ms).take(np.array([0 if alone else -1], dtype=np.int32))
    assert of.status.tolist() == [EnrollmentStatus.NONE if found is None else found.status]


@given(facts=fact_sets(), more=fact_sets(), at_ms=instants)
def test_whoever_a_fact_changes_is_named_and_answered_alone_as_among_all(
    facts: list[Fact], more: list[Fact], at_ms: int
) -> None:
    book = book_of(facts)
    before, version, subjects_before = book.membership(PROGRAM, at_ms), book.version, book.subjects
    for fact in more:
        book.add(replace(fact, revision=fact.revision + 100))
    changed = book.changed_since(version)
    assert changed is not None
    after, few = book.membership(PROGRAM, at_ms), book.membership(PROGRAM, at_ms, changed)
    assert few.left_out.tolist() == after.left_out[changed].tolist()
    assert few.stated_ms.tolist() == after.stated_ms[changed].tolist()
    assert few.customer.tolist() == after.customer[changed].tolist()
    different = np.flatnonzero(before.left_out != after.left_out[:subjects_before])
    assert set(different.tolist()) <= set(changed.tolist())
    places = changed[changed < subjects_before]
    held_on = before.replaced(places, few.take(np.flatnonzero(changed < subjects_before).astype(np.int32)))
    for other in range(max(held_on.from_ms, 0), min(held_on.until_ms, 31)):
        again = book.membership(PROGRAM, other).left_out[:subjects_before]
        assert again.tolist() == held_on.left_out.tolist(), "until an edge"


def test_a_book_that_changed_too_much_says_so() -> None:
    book = EnrollmentBook()
    for number in range(TOUCHED_MAX + 1):
        book.add(enrolled(device(f"home-{number}"), revision=number + 1))
    assert book.changed_since(0) is None
    last = book.changed_since(book.version - 2)
    assert last is not None
    assert last.tolist() == [TOUCHED_MAX - 1, TOUCHED_MAX]


@given(facts=fact_sets(), data=st.data())
def test_who_is_behind_a_meter_follows_from_the_facts_so_far_whatever_was_asked_before(
    facts: list[Fact], data: st.DataObject
) -> None:
    book = EnrollmentBook()
    for at, fact in enumerate(facts):
        book.add(fact)
        newest = {one.key: one for one in facts[: at + 1] if isinstance(one, MeterDevice)}
        for at_ms in data.draw(st.lists(instants, max_size=2)):
            behind = [
                sorted({one.device for one in newest.values() if one.meter == name and one.holds(at_ms)})
                for name in ("m-1", "m-2")
            ]
            assert book.devices_of(["m-1", "m-2"], at_ms) == behind


@given(facts=st.one_of(fact_sets(), fact_sets(most=5)), at_ms=instants)
def test_nothing_changes_between_the_edges_that_membership_names(facts: list[Fact], at_ms: int) -> None:
    book = book_of(facts)
    found = book.membership(PROGRAM, at_ms)
    for other in range(max(found.from_ms, 0), min(found.until_ms, 31)):
        again = book.membership(PROGRAM, other)
        assert np.array_equal(again.left_out, found.left_out)
        assert np.array_equal(again.customer, found.customer)


def test_one_question_is_answered_for_the_whole_fleet() -> None:
    book = EnrollmentBook()
    for number in range(2_000):
        home = device(f"home-{number}")
        book.add(enrolled(home, revision=3 * number + 1, period=SEASON))
        book.add(held(home, f"c-{number}", revision=3 * number + 2))
        book.add(consented(f"c-{number}", revision=3 * number + 3))
    found = book.membership(PROGRAM, DAY_MS)
    assert len(found.status) == 2_000
    assert not found.left_out.any()


def test_kinds_of_facts_are_all_of_them() -> None:
    assert set(Fact.__args__) == {
        Enrollment, OwnerPreference, Holding, Payee, MeterDevice, Consent, Withdrawal,
    }  # fmt: skip
