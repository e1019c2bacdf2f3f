"""Tables of enrollments, customers and consents: what they state, what they refuse, and that twice is once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.enrollment import LeftOut
from gateway.domain.programs.facts import (
    Consent,
    Deadline,
    DispatchOption,
    Enrollment,
    EnrollmentStatus,
    Holding,
    MeterDevice,
    OwnerPreference,
    Payee,
    PayeeRole,
    Preference,
    RateLock,
)
from gateway.domain.programs.terms import ProgramTerms
from gateway.ports.programs import FactQuestion
from gateway.services.programs.enrollment import Enrollments, TableReport
from gateway.storage.programs.facts import NAME
from tests.services.programs.stores import AUG_1, BASE, CONSENT, JULY_1, JUNE_1, MAY_1, left_out, opened, table

HELD = {"customer": "c-1", "device": "home-1", "held_since": "2026-01-01T00:00:00Z"}


async def enroll(service: Enrollments, *rows: dict[str, str]) -> TableReport:
    return await service.import_enrollments(table(*rows), form="csv", by="clerk", door=AuditDoor.REST)


async def name(service: Enrollments, *rows: dict[str, str]) -> TableReport:
    return await service.import_customers(table(*rows), form="csv", by="clerk", door=AuditDoor.REST)


async def agree(service: Enrollments, *rows: dict[str, str]) -> TableReport:
    return await service.import_consents(table(*rows), form="csv", by="clerk", door=AuditDoor.REST)


def problems(report: TableReport) -> list[tuple[int, str]]:
    return [(row.line, row.problem) for row in report.bad]


def counts(report: TableReport) -> tuple[int, int, int, int]:
    return report.rows, report.changed, report.unchanged, len(report.bad)


async def newest(service: Enrollments, kind: Any) -> Any:
    found = await service.store.facts(FactQuestion(kinds=(kind,)), 100)
    return found[-1].fact


# -- enrollments ----------------------------------------------------------------------------------------------------


async def test_a_home_takes_part_once_it_is_enrolled_held_and_agreed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        assert counts(await enroll(service, BASE)) == (1, 1, 0, 0)
        await name(service, HELD)
        assert left_out(service, JUNE_1) is LeftOut.CONSENT_MISSING
        await agree(service, CONSENT)
        assert left_out(service, JUNE_1) is LeftOut.NOT
    async with opened(tmp_path) as (service, _):
        assert left_out(service, JUNE_1) is LeftOut.NOT, "after a restart too"


async def test_the_same_table_again_states_nothing(tmp_path: Path) -> None:
    rows = [BASE | {"device": f"home-{n}", "participation_preference": "PARTICIPATE"} for n in range(5)]
    async with opened(tmp_path) as (service, clock):
        assert counts(await enroll(service, *rows)) == (5, 5, 0, 0)
        clock.advance(s=86_400)
        before = await service.every((Enrollment, OwnerPreference))
        assert counts(await enroll(service, *rows, rows[0])) == (6, 0, 6, 0)
        assert await service.every((Enrollment, OwnerPreference)) == before


async def test_every_column_of_an_enrollment_is_kept(tmp_path: Path) -> None:
    row = BASE | {
        "meter_id": "m-1", "enrollment_status": "PENDING", "reasons": "HAS_NOMINATIONS; NO_MISSING_FIELDS",
        "market_group_id": "g-1", "enrollment_deadline_date_time": "2026-04-15T07:00:00Z",
        "activation_date_time": "2026-05-01T07:00:00Z", "dispatch_option": "TARGETED", "rate_key": "ri-2024",
        "rate_locked": "2024-05-31T04:00:00Z", "rate_locked_until": "9000-12-31T23:59:59.999999Z",
        "transmission_region": "CAISO",
    }  # fmt: skip
    async with opened(tmp_path) as (service, _):
        await enroll(service, row)
        fact = await newest(service, Enrollment)
        assert fact.reasons == ("HAS_NOMINATIONS", "NO_MISSING_FIELDS")
        assert fact.deadlines == (
            Deadline(what="enrollment", at_ms=MAY_1 - 16 * 86_400_000), Deadline(what="activation", at_ms=MAY_1),
        )  # fmt: skip
        assert fact.rate == RateLock(key="ri-2024", locked_ms=1_717_128_000_000)
        assert (fact.market_group, fact.dispatch) == ("g-1", DispatchOption.TARGETED)
        assert (fact.status, fact.from_ms) == (EnrollmentStatus.PENDING, MAY_1)
        assert service.book.devices_of(["m-1"], JUNE_1) == [["home-1"]]


async def test_a_status_that_changes_in_mid_period_counts_from_when_it_was_heard(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, clock):
        await name(service, HELD)
        await agree(service, CONSENT)
        await enroll(service, BASE | {"enrollment_status": "PENDING"})
        clock.advance(s=3600)
        await enroll(service, BASE)
        assert left_out(service, JUNE_1) is LeftOut.NOT_ACTIVE
        assert left_out(service, JUNE_1 + 3_600_000) is LeftOut.NOT


async def test_a_correction_says_since_when(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        await name(service, HELD)
        await agree(service, CONSENT)
        await enroll(service, BASE)
        await enroll(service, BASE | {"enrollment_status": "INELIGIBLE", "since": "2026-05-15T07:00:00Z"})
        assert left_out(service, MAY_1) is LeftOut.NOT
        assert left_out(service, JUNE_1) is LeftOut.INELIGIBLE
        await enroll(service, BASE | {"since": "2026-05-15T07:00:00Z"})
        assert left_out(service, JUNE_1) is LeftOut.NOT


async def test_a_delivery_period_that_is_moved_takes_what_is_known_of_it_along(tmp_path: Path) -> None:
    async with opened(tmp_path, utc_ms=JULY_1) as (service, _):
        await name(service, HELD)
        await agree(service, CONSENT)
        await enroll(service, BASE, BASE | {"enrollment_status": "PENDING", "since": "2026-05-15T07:00:00Z"})
        ends = {"delivery_period_end_date_time": "2026-07-01T07:00:00Z"}
        await enroll(service, BASE | {"enrollment_status": "PENDING"} | ends)
        assert left_out(service, JULY_1 - 1) is LeftOut.NOT_ACTIVE
        assert left_out(service, JULY_1) is LeftOut.NOT_ENROLLED


@pytest.mark.parametrize(
    ("word", "status", "kept"),
    [
        ("ACTIVE", EnrollmentStatus.ACTIVE, ""),
        ("active", EnrollmentStatus.ACTIVE, ""),
        ("NOT_PARTICIPATING", EnrollmentStatus.INELIGIBLE, ""),
        ("candidate", EnrollmentStatus.CANDIDATE, ""),
        ("NAPPING", EnrollmentStatus.UNKNOWN, "NAPPING"),
    ],
)
async def test_a_status_is_ours_or_unknown_and_kept(
    tmp_path: Path, word: str, status: EnrollmentStatus, kept: str
) -> None:
    async with opened(tmp_path) as (service, _):
        await enroll(service, BASE | {"enrollment_status": word})
        fact = await newest(service, Enrollment)
        assert (fact.status, fact.peer_status) == (status, kept)


@pytest.mark.parametrize(
    ("word", "preference"),
    [("PARTICIPATE", Preference.PARTICIPATE), ("IDLE", Preference.PAUSED), ("DISENROLL", Preference.LEAVING),
     ("MAYBE", Preference.UNKNOWN)],
)  # fmt: skip
async def test_a_preference_is_ours_or_unknown(tmp_path: Path, word: str, preference: Preference) -> None:
    async with opened(tmp_path) as (service, _):
        await enroll(service, BASE | {"participation_preference": word})
        assert (await newest(service, OwnerPreference)).preference is preference


async def test_an_idle_time_begins_and_ends_as_the_peer_says(tmp_path: Path) -> None:
    idle = BASE | {
        "participation_preference": "IDLE", "participation_start_time": "2026-06-10T07:00:00Z",
        "participation_end_time": "2026-06-12T07:00:00Z",
    }  # fmt: skip
    async with opened(tmp_path) as (service, _):
        await name(service, HELD)
        await agree(service, CONSENT)
        await enroll(service, idle)
        day = 86_400_000
        found = [left_out(service, JUNE_1 + day * n) for n in (8, 9, 10, 11)]
        assert found == [LeftOut.NOT, LeftOut.OPTED_OUT, LeftOut.OPTED_OUT, LeftOut.NOT]


async def test_an_id_of_the_peer_names_our_program(tmp_path: Path) -> None:
    row = {name: value for name, value in BASE.items() if name != "program"} | {"program_identifier": "CEC-DSGS"}
    async with opened(tmp_path, program_of={"CEC-DSGS": "dsgs"}) as (service, _):
        await enroll(service, row)
        assert (await newest(service, Enrollment)).program == "dsgs"
    async with opened(tmp_path) as (service, _):
        await enroll(service, row)
        assert (await newest(service, Enrollment)).program == "CEC-DSGS"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"device": ""}, "device: a device or a meter_id is required"),
        ({"program": ""}, "program: either program or program_identifier is required"),
        ({"enrollment_status": ""}, "enrollment_status: required"),
        (
            {"delivery_period_end_date_time": "2026-04-01T00:00:00Z"},
            "delivery_period_end_date_time: not after its start",
        ),
        ({"delivery_period_end_date_time": "soon"}, "delivery_period_end_date_time: a time is written in RFC 3339"),
        ({"since": "2026-09-01T00:00:00Z"}, "since: not before the end of the delivery period"),
        ({"rate_key": "ri"}, "rate_locked: a rate_key needs it"),
        ({"dispatch_option": "WEEKLY"}, "dispatch_option: Input should be 'daily' or 'targeted'"),
        ({"partner_reference": "home-9"}, "partner_reference: it is another one than device"),
        ({"participation_end_time": "2026-06-01T00:00:00Z"}, "participation_preference: required beside its times"),
    ],
)
async def test_a_bad_row_is_named_with_its_line_and_the_others_are_taken(
    tmp_path: Path, change: dict[str, str], problem: str
) -> None:
    async with opened(tmp_path) as (service, _):
        report = await enroll(service, BASE, BASE | {"device": "home-2"} | change, BASE | {"device": "home-3"})
        assert counts(report) == (3, 2, 0, 1)
        [(line, told)] = problems(report)
        assert line == 3
        assert problem in told


async def test_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        report = await enroll(service, BASE, BASE | {"enrollment_status": "PENDING"})
        assert problems(report) == [(3, "enrollment_status: line 2 says something else of it")]


async def test_a_table_names_every_battery_behind_a_meter(tmp_path: Path) -> None:
    rows = [BASE | {"meter_id": "m-1", "device": name} for name in ("home-1", "home-2", "home-3")]
    async with opened(tmp_path) as (service, _):
        for changed in (3, 0):
            report = await enroll(service, *rows)
            assert (problems(report), report.changed) == ([], changed)
            assert service.book.devices_of(["m-1"], JUNE_1) == [["home-1", "home-2", "home-3"]]
        report = await enroll(service, rows[0], rows[1] | {"enrollment_status": "PENDING"})
        assert problems(report) == [(3, "enrollment_status: line 2 says something else of it")]


async def test_a_table_with_unknown_columns_is_refused_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        with pytest.raises(InvalidInput, match="unknown column 'colour'"):
            await enroll(service, BASE | {"colour": "red"})
        with pytest.raises(InvalidInput, match="empty"):
            await service.import_enrollments(" \n", form="csv", by="clerk", door=AuditDoor.REST)


async def test_json_lines_say_the_same_as_csv(tmp_path: Path) -> None:
    text = json.dumps(BASE) + "\n" + "nonsense\n" + json.dumps(BASE | {"device": "home-2"}) + "\n"
    async with opened(tmp_path) as (service, _):
        report = await service.import_enrollments(text, form="jsonl", by="clerk", door=AuditDoor.REST)
        assert counts(report) == (3, 2, 0, 1)
        assert report.bad[0].line == 2
        assert counts(await enroll(service, BASE)) == (1, 0, 1, 0)


async def test_a_home_in_two_exclusive_programs_is_refused(tmp_path: Path) -> None:
    in_ca = ProgramTerms(exclusive=frozenset({"ca"}))
    terms = {"dsgs": in_ca, "elrp": in_ca, "ra": ProgramTerms()}
    behind = BASE | {"meter_id": "m-1", "program": "elrp", "delivery_period": "ELRP"}
    async with opened(tmp_path, terms=terms) as (service, _):
        report = await enroll(service, BASE, behind, BASE | {"program": "ra"})
        assert counts(report) == (3, 2, 0, 1)
        assert problems(report) == [(3, "program: home-1 is active in dsgs in DSGS_MAY_JUL, which excludes elrp (ca)")]
        again = await enroll(service, behind)
        assert "home-1 is active in dsgs" in problems(again)[0][1], "against what is known too"
        moved = await enroll(service, BASE | {"enrollment_status": "INELIGIBLE"}, behind)
        assert counts(moved) == (2, 2, 0, 0), "once it has left the first one"


async def test_a_home_that_comes_behind_a_meter_of_an_exclusive_program_is_refused(tmp_path: Path) -> None:
    in_ca = ProgramTerms(exclusive=frozenset({"ca"}))
    terms = {"dsgs": in_ca, "elrp": in_ca, "ra": ProgramTerms()}
    meter = {key: value for key, value in BASE.items() if key != "device"} | {"meter_id": "m-1", "program": "elrp"}
    joined = BASE | {"meter_id": "m-1", "program": "ra"}
    async with opened(tmp_path, terms=terms) as (service, _):
        assert counts(await enroll(service, BASE, meter)) == (2, 2, 0, 0)
        report = await enroll(service, joined)
        assert problems(report) == [(2, "meter_id: home-1 is active in dsgs in DSGS_MAY_JUL, which excludes elrp (ca)")]
        left = await enroll(service, meter | {"enrollment_status": "INELIGIBLE"}, joined)
        assert counts(left) == (2, 2, 0, 0), "once the meter has left"


async def test_home_is_bound_by_a_meter_as_long_as_it_was_behind_it_and_again_when_it_comes_back(
    tmp_path: Path,
) -> None:
    in_ca = ProgramTerms(exclusive=frozenset({"ca"}))
    terms = {"dsgs": in_ca, "elrp": in_ca}
    meter = {key: value for key, value in BASE.items() if key != "device"} | {"meter_id": "m-1", "program": "elrp"}
    later = BASE | {"delivery_period": "LATE", "delivery_period_start_date_time": "2026-06-01T07:00:00Z"}
    async with opened(tmp_path, terms=terms) as (service, _):
        left = MeterDevice(
            meter="m-1", device="home-1", from_ms=MAY_1, until_ms=JUNE_1, revision=service.store.revision()
        )
        await service.store.commit([left], by="x", door=AuditDoor.REST)
        assert counts(await enroll(service, meter)) == (1, 1, 0, 0)
        report = await enroll(service, BASE)
        assert "home-1 is active in elrp" in problems(report)[0][1], "it was behind the meter in May"
        assert counts(await enroll(service, later)) == (1, 1, 0, 0), "not from June on"
        back = meter | {"device": "home-1", "since": "2026-07-01T07:00:00Z"}
        report = await enroll(service, back)
        assert "home-1 is active in dsgs" in problems(report)[0][1], "and in July it would be again"


async def test_ten_thousand_rows_are_one_commit(tmp_path: Path) -> None:
    rows = [BASE | {"device": f"home-{n}"} for n in range(10_000)]
    async with opened(tmp_path) as (service, _):
        assert counts(await enroll(service, *rows)) == (10_000, 10_000, 0, 0)
        assert service.book.subjects == 10_000


async def test_nothing_counts_that_is_not_durable_but_what_takes_somebody_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        await enroll(service, BASE)
        await name(service, HELD)
        await agree(service, CONSENT)
        service.store = _Full(service.store)
        with pytest.raises(StorageError):
            await enroll(service, BASE | {"program": "ra"})
        with pytest.raises(StorageError):
            await agree(service, {"customer": "c-1", "program": "dsgs", "withdrawn": "2026-05-20T00:00:00Z", "by": "x"})
        assert left_out(service, JUNE_1, program="ra") is LeftOut.CONSENT_MISSING
        assert left_out(service, JUNE_1) is LeftOut.CONSENT_WITHDRAWN


class _Full:
    """A store whose disk is full."""

    def __init__(self, store: Any) -> None:
        self.revision, self.facts, self.customers, self.note_erased = (
            store.revision, store.facts, store.customers, store.note_erased,
        )  # fmt: skip
        self.untold, self.told, self.changes, self.digest = store.untold, store.told, store.changes, store.digest

    async def commit(self, *_: Any, **__: Any) -> None:
        raise StorageError("full")


# -- consents -------------------------------------------------------------------------------------------------------


async def test_a_withdrawal_stays_when_the_table_of_consents_comes_again(tmp_path: Path) -> None:
    withdrawal = {"customer": "c-1", "program": "dsgs", "withdrawn": "2026-05-20T00:00:00Z", "by": "owner"}
    async with opened(tmp_path) as (service, _):
        await enroll(service, BASE)
        await name(service, HELD)
        assert counts(await agree(service, CONSENT, withdrawal)) == (2, 2, 0, 0)
        assert counts(await agree(service, CONSENT)) == (1, 0, 1, 0)
        assert left_out(service, JUNE_1) is LeftOut.CONSENT_WITHDRAWN


async def test_a_consent_needs_its_evidence(tmp_path: Path) -> None:
    no_document = {name: value for name, value in CONSENT.items() if name != "document_sha256"}
    bad = [
        (no_document, "document_sha256: a consent that was given needs it"),
        (CONSENT | {"document_sha256": "abc"}, "document_sha256"),
        (CONSENT | {"by": ""}, "by: required"),
        (CONSENT | {"expires": "2026-01-01T00:00:00Z"}, "expires: not after it was given"),
        (CONSENT | {"given": "", "document_sha256": ""}, "given: when was it given, or withdrawn?"),
    ]
    async with opened(tmp_path) as (service, _):
        report = await agree(service, *(row for row, _ in bad))
        assert len(report.bad) == len(bad)
        for row, (_, problem) in zip(report.bad, bad, strict=True):
            assert problem in row.problem
        await agree(service, CONSENT | {"expires": "2027-01-01T00:00:00Z"})
        fact = await newest(service, Consent)
        assert (fact.by, fact.document, fact.expires_ms) == ("x", "ab" * 32, 1_798_761_600_000)


# -- customers ------------------------------------------------------------------------------------------------------

PERSON = {"end_customer_name": "Ada Canary", "street_1": "1 Canary Row", "electric_service_account_number": "CAN-1"}


async def test_a_home_that_is_sold_in_mid_quarter_leaves_the_past_as_it_was(tmp_path: Path) -> None:
    sold = {
        "customer": "c-2", "device": "home-1", "held_since": "2026-07-01T07:00:00Z", "payee": "bank",
        "payee_role": "FINANCIER", "paid_since": "2026-07-01T07:00:00Z",
    }  # fmt: skip
    async with opened(tmp_path, utc_ms=AUG_1) as (service, _):
        await enroll(service, BASE)
        await agree(service, CONSENT)
        await name(service, HELD | {"payee": "p-1", "paid_since": "2026-01-01T00:00:00Z"}, sold)
        assert left_out(service, JULY_1 - 1) is LeftOut.NOT
        assert left_out(service, JULY_1) is LeftOut.CONSENT_MISSING
        paid = [fact for fact in await service.every((Payee,)) if isinstance(fact, Payee)]
        assert [(fact.payee, fact.role, fact.from_ms) for fact in paid] == [
            ("p-1", PayeeRole.OWNER, 1_767_225_600_000), ("bank", PayeeRole.FINANCIER, JULY_1),
        ]  # fmt: skip
        assert len(await service.every((Holding,))) == 2


async def test_who_a_customer_is_goes_into_its_own_store_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        report = await name(service, HELD | PERSON)
        assert (counts(report), report.personal) == ((1, 1, 0, 0), 1)
        assert service.personal is not None
        assert await service.personal.known(["c-1"]) == {"c-1"}
    assert b"anary" not in (tmp_path / NAME).read_bytes()


async def test_an_erased_customer_stays_erased_and_what_stands_under_the_reference_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        await enroll(service, BASE)
        await agree(service, CONSENT)
        await name(service, HELD | PERSON)
        assert await service.erase("c-1", by="clerk", door=AuditDoor.REST) is True
        assert await service.erase("c-1", by="clerk", door=AuditDoor.REST) is False
        assert await service.erase("nobody", by="clerk", door=AuditDoor.REST) is None
        assert left_out(service, JUNE_1) is LeftOut.NOT
        report = await name(service, HELD | PERSON)
        assert problems(report) == [(2, "customer: was erased; a reference is not used again")]


async def test_the_same_customer_twice_is_refused_and_no_value_is_repeated(tmp_path: Path) -> None:
    twice = PERSON | {"customer": "c-2"}
    other = HELD | PERSON | {"end_customer_name": "Eve Canary"}
    bad_mail = {"customer": "c-3", "end_customer_email": "canary at home"}
    async with opened(tmp_path) as (service, _):
        report = await name(service, HELD | PERSON, twice, other, HELD | {"customer": "c-4"}, bad_mail)
        told = problems(report)
        assert [line for line, _ in told] == [3, 4, 5, 6]
        assert "line 2 has it of another customer" in told[0][1]
        assert "line 2 says something else of the customer" in told[1][1]
        assert "line 2 gives it to another one" in told[2][1]
        assert "anary" not in str(report) + str(told)


async def test_nothing_of_a_table_of_customers_is_repeated_wherever_it_stands(tmp_path: Path) -> None:
    shifted = {"customer": "Ada Canary", "held_since": "1 Canary Row", "payee": "ada@canary.example"}
    async with opened(tmp_path) as (service, _):
        report = await name(service, shifted, HELD)
        assert [row.line for row in report.bad] == [2]
        assert "anary" not in str(report)
        with pytest.raises(InvalidInput) as refused:
            await service.import_customers("Ada Canary,Canaryville\n1,2\n", form="csv", by="x", door=AuditDoor.REST)
        assert refused.value.problems == ["line 1: unknown columns: 2", "line 1: no column 'customer'"]
        text = json.dumps({"customer": "c-1", "Ada Canary": 1}) + "\n"
        told = await service.import_customers(text, form="jsonl", by="x", door=AuditDoor.REST)
        assert problems(told) == [(1, "unknown column")]


async def test_personal_data_without_a_key_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, personal=False) as (service, _):
        report = await name(service, HELD | PERSON, HELD)
        assert counts(report) == (2, 1, 0, 1)
        assert "customers.personal_key" in problems(report)[0][1]


async def test_a_fact_that_is_known_has_the_revision_it_had(tmp_path: Path) -> None:
    async with opened(tmp_path) as (service, _):
        await enroll(service, BASE)
        first = await newest(service, Enrollment)
        await enroll(service, BASE | {"market_group_id": "g-2"})
        second = await newest(service, Enrollment)
        assert second.revision > first.revision
        assert second == replace(first, market_group="g-2", revision=second.revision, from_ms=JUNE_1)
