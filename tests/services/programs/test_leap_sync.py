"""Our enrollments in step with a strict stand-in of the aggregator: in any order, twice, while it misbehaves."""

import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.domain.errors import GatewayError
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.facts import (
    Enrollment,
    EnrollmentStatus,
    MeterDevice,
    Preference,
    Subject,
    SubjectKind,
)
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.leap_sync import LeapSync
from gateway.signals.leap_account.enrollments import meter_enrollment
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import LeapClient
from simulators.aggregator import Access, Aggregator, Environment, Mishap, Operation, Seen, Trouble
from simulators.aggregator.periods import Period, Periods
from simulators.aggregator.periods import Preference as Wish
from tests.services.programs.stores import JUNE_1, opened

KEY, FOREIGN = "key-of-the-account", "key-of-production"
ASSET = {
    "transmission_region": "CAISO", "customer_classification": "RESIDENTIAL", "load_types": ["BATTERY_STORAGE"],
    "meter_type": "DEVICE",
    "customer": {
        "street_1": "1 Way", "city": "Fresno", "postal_code": "93650", "state_or_province_code": "CA",
        "country_code": "US",
    },
}  # fmt: skip
PERIOD = {
    "program_identifier": "CEC-DSGS", "delivery_period": "CEC-DSGS_2026_AUG_OCT",
    "delivery_period_start_date_time": "2026-08-01T07:00:00Z",
    "delivery_period_end_date_time": "2026-11-01T07:00:00Z", "enrollment_status": "ACTIVE",
    "enrollment_deadlines": [],
}  # fmt: skip

OURS = {name: str(value) for name, value in PERIOD.items() if name.startswith("delivery") or name.endswith("status")}
OURS |= {"program": "dsgs-option3"}
"""A row of our own about a meter of that period."""


@dataclass
class Rig:
    sync: LeapSync
    enrollments: Enrollments
    aggregator: Aggregator

    def meter(self, number: int, **period: Any) -> str:
        """A meter that is enrolled."""
        made = self.aggregator.meter_book.add(
            ASSET | {"partner_reference": f"home-{number}"}, meter_id=str(uuid.UUID(int=number + 1))
        )
        made.programs = [PERIOD | period]
        return made.meter_id

    async def facts(self, kind: type) -> list[Any]:
        return await self.enrollments.every((kind,))


@asynccontextmanager
async def rig(directory: Path, *, key: str = KEY) -> AsyncIterator[Rig]:
    keys = {KEY: Access(), FOREIGN: Access(environment=Environment.PRODUCTION)}
    async with opened(directory) as (enrollments, clock), Aggregator(keys=keys, meters={}) as aggregator:
        account = LeapAccount(environment="staging", key=SecretStr(key), url=aggregator.url)
        sync = LeapSync(
            LeapClient(account), enrollments, program_of={"CEC-DSGS": "dsgs-option3"}, clock=clock, every_s=None,
            mismatched=lambda: 0, rng=random.Random(1),
        )  # fmt: skip
        async with sync:
            yield Rig(sync, enrollments, aggregator)
        assert aggregator.faults == []


async def test_what_the_aggregator_says_is_stated_once_and_again_states_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meters = [r.meter(number) for number in range(3)]
        first = await r.sync.sync()
        assert (first.meters, first.rows, first.changed, first.conflicts) == (3, 3, 3, [])
        known = await r.facts(Enrollment)
        assert {(one.subject.id, one.program, one.status) for one in known} == {
            (meter, "dsgs-option3", EnrollmentStatus.ACTIVE) for meter in meters
        }
        behind = {(one.meter, one.device) for one in await r.facts(MeterDevice)}
        assert behind == {(meter, f"home-{number}") for number, meter in enumerate(meters)}
        assert (await r.sync.sync()).changed == 0


async def test_change_is_stated_from_when_it_was_read_and_an_unknown_word_stays(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter(0)
        await r.sync.sync()
        r.aggregator.meter_book.meters[meter].programs = [PERIOD | {"enrollment_status": "INELIGIBLE"}]
        assert (await r.sync.sync()).changed == 1
        statuses = [one.status for one in await r.facts(Enrollment)]
        assert statuses[-1] is EnrollmentStatus.INELIGIBLE


async def test_archived_meter_is_ineligible_and_one_that_is_not_shown_stays_as_it_was(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        kept, archived = r.meter(0), r.meter(1)
        await r.sync.sync()
        r.aggregator.meter_book.meters[archived].archived = True
        del r.aggregator.meter_book.meters[kept]
        await r.sync.sync()
        newest = {one.subject.id: one for one in await r.facts(Enrollment)}
        assert newest[kept].status is EnrollmentStatus.ACTIVE
        assert (newest[archived].status, newest[archived].reasons) == (EnrollmentStatus.INELIGIBLE, ("archived",))


async def test_statement_of_ours_with_a_later_since_stays_and_what_the_aggregator_says_counts_until_then(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter(0)
        row = OURS | {"meter_id": meter, "enrollment_status": "INELIGIBLE", "since": "2026-09-15T00:00:00Z"}
        text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
        await r.enrollments.import_enrollments(text, form="csv", by="x", door=AuditDoor.REST)
        assert (await r.sync.sync()).changed == 1
        assert (await r.sync.sync()).changed == 0
        statuses = {one.from_ms: one.status for one in await r.facts(Enrollment)}
        assert [statuses[at] for at in sorted(statuses)] == [EnrollmentStatus.ACTIVE, EnrollmentStatus.INELIGIBLE]


@pytest.mark.parametrize(
    ("first", "then", "preference"),
    [
        ("PARTICIPATE 2026-05-10", "IDLE 2026-05-01", Preference.PAUSED),
        ("IDLE 2026-05-10", "PARTICIPATE 2026-05-01", Preference.PARTICIPATE),
    ],
)
async def test_wish_that_begins_before_an_earlier_word_of_the_aggregator_counts_from_when_it_was_read(
    tmp_path: Path, first: str, then: str, preference: Preference
) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter(0)
        told = r.aggregator.meter_book.meters[meter]
        for words, changed in ((first, 1), (then, 2), (then, 0)):
            word, day = words.split()
            told.periods = Periods(date.fromisoformat(day))
            told.periods.put(Period(preference=Wish(word), first=date.fromisoformat(day)))
            assert (await r.sync.sync()).changed == changed
        book = r.enrollments.book
        number = book.number_of(Subject(kind=SubjectKind.LEAP_METER, id=meter))
        assert Preference(int(book.membership("dsgs-option3", JUNE_1).preference[number])) is preference


async def test_meter_that_sits_out_here_by_our_own_word_goes_on_doing_so_whatever_the_aggregator_says(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter(0)
        row = OURS | {
            "meter_id": meter,
            "participation_preference": "IDLE",
            "participation_start_time": "2026-05-20T00:00:00Z",
        }
        text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
        await r.enrollments.import_enrollments(text, form="csv", by="x", door=AuditDoor.REST)
        for word in (Wish.PARTICIPATE, Wish.DISENROLL, Wish.PARTICIPATE):
            told = r.aggregator.meter_book.meters[meter]
            told.periods = Periods(date(2026, 5, 1))
            told.periods.put(Period(preference=word, first=date(2026, 5, 1)))
            await r.sync.sync()
            number = r.enrollments.book.number_of(Subject(kind=SubjectKind.LEAP_METER, id=meter))
            wish = r.enrollments.book.membership("dsgs-option3", JUNE_1).preference[number]
            assert Preference(int(wish)) is Preference.PAUSED


async def test_what_we_are_to_do_is_listed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meter = r.meter(0)
        action = {
            "program_identifier": "CEC-DSGS", "delivery_period": "CEC-DSGS_2026_AUG_OCT",
            "enrollment_deadline_date_time": "2026-07-01T07:00:00Z", "action_type": "IS_AUTHORIZED",
            "action_description": "Authorize again", "action_code": "AUTH_0001",
        }  # fmt: skip
        r.aggregator.meter_book.meters[meter].actions = {"partner": [action], "leap": [action]}
        report = await r.sync.sync()
        assert [(one.reference, one.code, one.text) for one in report.actions] == [
            ("home-0", "AUTH_0001", "Authorize again")
        ]


@pytest.mark.parametrize("trouble", [Trouble.ANSWER, Trouble.CUT, Trouble.HALF])
async def test_read_that_fails_states_nothing_and_says_so(tmp_path: Path, trouble: Trouble) -> None:
    async with rig(tmp_path) as r:
        r.meter(0)
        r.aggregator.script(Operation.ENROLLMENT_SEARCH, Mishap(trouble=trouble, status=503))
        with pytest.raises(GatewayError):
            await r.sync.sync()
        assert await r.facts(Enrollment) == []
        assert r.sync.failing
        assert r.sync.warnings()[0].startswith("enrollments of the aggregator cannot be read")
        await r.sync.sync()
        assert (r.sync.failing, len(await r.facts(Enrollment))) == ("", 1)


async def test_key_of_another_environment_reads_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path, key=FOREIGN) as r:
        with pytest.raises(GatewayError, match="the key is of the other environment"):
            await r.sync.sync()


async def test_many_meters_are_read_page_by_page(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        for number in range(1_203):
            r.meter(number)
        report = await r.sync.sync()
        assert (report.meters, report.changed) == (1_203, 1_203)


async def test_pages_that_shift_under_the_reader_lose_no_meter_and_double_none(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        meters = [r.meter(number) for number in range(1_100)]
        r.aggregator.mischief.offset_pages = True
        reads = 0

        def shift(seen: Seen) -> None:
            """One of the first page goes before the second is asked for, and one comes before the third."""
            nonlocal reads
            if seen.operation is Operation.ENROLLMENT_SEARCH:
                reads += 1
                if reads == 2:
                    del r.aggregator.meter_book.meters[meters[0]]
                if reads == 3:
                    r.meter(-1)

        r.aggregator.on_request = shift
        report = await r.sync.sync()
        assert (report.meters, report.changed, reads) == (1_101, 1_101, 9)
        known = await r.facts(Enrollment)
        assert len(known) == len({one.subject.id for one in known}) == 1_101
        r.aggregator.on_request = lambda _: None
        assert (await r.sync.sync()).changed == 0


odd: st.SearchStrategy[Any] = (
    st.none() | st.integers() | st.text(max_size=12) | st.lists(st.none(), max_size=2) | st.just({})
)
entries = st.fixed_dictionaries(
    {"meter_id": st.just("m-1") | odd},
    optional={
        "partner_reference": odd, "is_archived": st.booleans() | odd, "required_actions": odd,
        "program_enrollment": odd
        | st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(PERIOD, odd)), max_size=3),
        "participation_preferences": odd
        | st.lists(
            st.fixed_dictionaries(
                {}, optional=dict.fromkeys(("participation_preference", "start_time", "end_time"), odd)
            ),
            max_size=3,
        ),
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(entry=entries)
def test_whatever_an_entry_holds_is_read_or_told(entry: dict[str, Any]) -> None:
    found = meter_enrollment(entry, datetime(2026, 7, 1, tzinfo=UTC))
    if found is not None:
        assert all(row["meter_id"] == found.meter for row in found.rows)


@pytest.mark.parametrize(
    ("preferences", "word"),
    [
        ([("PARTICIPATE", "2026-01-01", "9000-01-01")], "PARTICIPATE"),
        ([("PARTICIPATE", "2026-01-01", "9000-01-01"), ("IDLE", "2026-06-30", "2026-07-02")], "IDLE"),
        ([("PARTICIPATE", "2026-01-01", "9000-01-01"), ("IDLE", "2026-08-01", "2026-08-02")], "IDLE"),
        ([("IDLE", "2026-06-01", "2026-06-02"), ("PARTICIPATE", "2026-06-02", "2099-12-31")], "PARTICIPATE"),
        ([("A_NEW_WORD", "2026-06-01", "2099-12-31")], "A_NEW_WORD"),
        ([], ""),
    ],
)  # fmt: skip
def test_time_out_counts_before_one_in_which_the_owner_takes_part(
    preferences: list[tuple[str, str, str]], word: str
) -> None:
    told = [
        {"participation_preference": one, "start_time": f"{start}T07:00:00Z", "end_time": f"{end}T07:00:00Z"}
        for one, start, end in preferences
    ]
    found = meter_enrollment(
        {"meter_id": "m-1", "program_enrollment": [PERIOD], "participation_preferences": told},
        datetime(2026, 7, 1, tzinfo=UTC),
    )
    assert found is not None
    assert found.wish == word
