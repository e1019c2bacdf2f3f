"""Enrollments, customers by reference, and consents: lists, one of each, imports, and the erasure of personal data."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.api.enrollment_models import (
    ConsentList,
    CustomerDetail,
    CustomerList,
    CustomerState,
    DueList,
    DueState,
    EligibilityList,
    EnrollmentDetail,
    EnrollmentList,
    Erased,
    FactChangeList,
    FactChangeState,
    ParticipationList,
    TableReportBody,
)
from gateway.api.exchange import PAGE_MAX, json_answer, json_list, problem
from gateway.api.route import BY, Number, RestRoute, Text, by
from gateway.api.views.enrollments import (
    consent_body,
    eligibility_state,
    enrollment_state,
    held_state,
    memberships,
    payee_state,
    preference_state,
    table_report,
)
from gateway.api.views.participation import ParticipationView
from gateway.clock import Clock
from gateway.domain.access import Scope
from gateway.domain.errors import InvalidInput
from gateway.domain.journal.changes import AuditDoor
from gateway.domain.programs.facts import (
    Consent,
    Enrollment,
    Fact,
    Holding,
    MeterDevice,
    OwnerPreference,
    Payee,
    Subject,
    SubjectKind,
    Withdrawal,
)
from gateway.domain.types import is_device_id
from gateway.ports.programs import FactQuestion, StoredFact
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.devices.table_rows import TableForm
from gateway.services.programs.actions import required_actions
from gateway.services.programs.eligibility import PAGE_MAX as ELIGIBILITY_PAGE
from gateway.services.programs.eligibility import Eligibility
from gateway.services.programs.enrollment import Enrollments, TableReport
from gateway.services.programs.rows import ConsentRow, CustomerRow, EnrollmentRow
from gateway.services.programs.sign_ups import SignUps

FORMS: dict[str, TableForm] = {"text/csv": "csv", "application/x-ndjson": "jsonl"}
OFFSET, DAYS = Number("offset", 0, 10**9), Number("days", 30, 400)
FEW = Number("limit", ELIGIBILITY_PAGE, ELIGIBILITY_PAGE)
AFTER, LIMIT = Number("after", 0, 1 << 62), Number("limit", 100, PAGE_MAX)
PROGRAM, SUBJECT, CUSTOMER, BEHIND = Text("program"), Text("subject"), Text("customer"), Text("after")
OF_ONE_MAX = 1_000
"""Facts that the answer about one subject or customer is made of, at most."""


class EnrollmentRoutes:
    """The routes of enrollments, customers and consents."""

    def __init__(
        self, enrollments: Enrollments, participation: ParticipationView, eligibility: Eligibility, sign_ups: SignUps,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._enrollments = enrollments
        self._participation = participation
        self._eligibility = eligibility
        self._sign_ups = sign_ups
        self._clock = clock

    async def enrollments(self, request: web.Request) -> web.StreamResponse:
        question = FactQuestion(
            kinds=(Enrollment,), program=_name(PROGRAM, request), subject=_name(SUBJECT, request),
            after=AFTER.of(request),
        )  # fmt: skip
        page, following = await self._page(question, LIMIT.of(request))
        rows = (enrollment_state(one, one.fact) for one in page if isinstance(one.fact, Enrollment))
        return await json_list(request, EnrollmentList(enrollments=[], next=following), "enrollments", rows)

    async def enrollment(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        found = await self._about(subject=name) if is_device_id(name) else []
        book, now_ms = self._enrollments.book, self._clock.now().utc_ms
        behind = [one.fact for one in found if isinstance(one.fact, MeterDevice)]
        for meter in sorted({fact.meter for fact in behind if fact.holds(now_ms)}):
            found += [one for one in await self._about(subject=meter) if not isinstance(one.fact, MeterDevice)]
        known = [one.fact for one in found if isinstance(one.fact, Enrollment)]
        stands = [
            state
            for kind in (SubjectKind.DEVICE, SubjectKind.LEAP_METER)
            for state in memberships(book, Subject(kind=kind, id=name), known, now_ms)
        ]
        if not found and not stands:
            return problem(404, "nothing is known of enrollments of this device or meter")
        body = EnrollmentDetail(
            id=name,
            memberships=stands,
            enrollments=[enrollment_state(one, one.fact) for one in found if isinstance(one.fact, Enrollment)],
            preferences=[preference_state(one.fact) for one in found if isinstance(one.fact, OwnerPreference)],
        )
        return json_answer(body)

    async def participation(self, request: web.Request) -> web.StreamResponse:
        program, offset, limit = request.match_info["id"], OFFSET.of(request), LIMIT.of(request)
        known = self._participation.participation.enrollment(program) is not None
        if not known and program not in self._enrollments.book.programs() and not self._participation.named(program):
            return problem(404, "no such program")
        body, rows = await self._participation.page(program, offset, limit)
        return await json_list(request, body, "devices", rows)

    async def eligibility(self, request: web.Request) -> web.StreamResponse:
        program, offset, limit = request.match_info["id"], OFFSET.of(request), FEW.of(request)
        if self._eligibility.requirements(program) is None:
            return problem(404, "no such program in the configuration or programs_dir")
        total, page = await self._eligibility.page(program, offset, limit)
        following = offset + len(page)
        body = EligibilityList(
            program=program, days=self._eligibility.days, unverified=sorted(self._eligibility.unverified(program)),
            total=total, devices=[],
            next=following if following < total and page else None,
        )  # fmt: skip
        return await json_list(request, body, "devices", map(eligibility_state, page))

    async def changes(self, request: web.Request) -> web.StreamResponse:
        batch, offset, limit = request.match_info["id"], OFFSET.of(request), LIMIT.of(request)
        sha256 = await self._enrollments.store.digest(batch)
        if sha256 is None:
            return problem(404, "no such commit")
        found = await self._enrollments.store.changes(batch, offset, limit + 1)
        page = found[:limit]
        body = FactChangeList(
            batch=batch, sha256=sha256, changes=[], next=found[limit].place if len(found) > limit else None
        )
        rows = (
            FactChangeState(place=one.place, kind=one.kind, key=one.key, before=one.before, after=one.after)
            for one in page
        )
        return await json_list(request, body, "changes", rows)

    async def deadlines(self, request: web.Request) -> web.StreamResponse:
        found = await self._enrollments.deadlines(DAYS.of(request))
        rows = (
            DueState(
                at=rfc3339(one.at_ms), local=one.local.isoformat(), what=one.what, program=one.program,
                delivery_period=one.period or None, count=one.count, some=list(one.some), lacking=one.lacking,
                unverified=one.unverified, missing_intervals=one.missing,
                missing_since=None if one.since_ms is None else rfc3339(one.since_ms),
            )
            for one in found
        )  # fmt: skip
        return await json_list(request, DueList(deadlines=[]), "deadlines", rows)

    async def import_enrollments(self, request: web.Request) -> web.StreamResponse:
        return await self._import(request, self._enrollments.import_enrollments)

    async def customers(self, request: web.Request) -> web.StreamResponse:
        limit, after = LIMIT.of(request), _name(BEHIND, request) or ""
        found = await self._enrollments.store.customers(after, limit + 1)
        page = found[:limit]
        body = CustomerList(customers=[], next=page[-1].ref if page and len(found) > limit else None)
        rows = (
            CustomerState(
                customer=one.ref, since=rfc3339(one.since_ms),
                erased=None if one.erased_ms is None else rfc3339(one.erased_ms),
            )
            for one in page
        )  # fmt: skip
        return await json_list(request, body, "customers", rows)

    async def customer(self, request: web.Request) -> web.StreamResponse:
        ref = request.match_info["id"]
        if not is_device_id(ref) or not await self._enrollments.store.customers("", 1, only=ref):
            return problem(404, "no such customer")
        stored = await self._about(customer=ref)
        facts = [one.fact for one in stored]
        held = sorted({fact.subject for fact in facts if isinstance(fact, Holding)})
        of_held: list[Fact] = []
        for subject in held:
            of_held += [one.fact for one in await self._about(subject=subject.id)]
        personal = self._enrollments.personal
        lacking = required_actions(
            [*facts, *(fact for fact in of_held if isinstance(fact, Enrollment | MeterDevice))],
            self._clock.now().utc_ms,
        )
        body = CustomerDetail(
            customer=ref,
            personal_data=personal is not None and ref in await personal.known([ref]),
            holdings=[held_state(fact) for fact in facts if isinstance(fact, Holding)],
            payees=[payee_state(fact) for fact in of_held if isinstance(fact, Payee) and fact.subject in held],
            consents=[consent_body(one, one.fact) for one in stored if isinstance(one.fact, Consent | Withdrawal)],
            required_actions=[*lacking, *(await self._sign_ups.of(ref)).actions],
        )
        return json_answer(body)

    async def import_customers(self, request: web.Request) -> web.StreamResponse:
        return await self._import(request, self._enrollments.import_customers)

    async def erase(self, request: web.Request) -> web.StreamResponse:
        ref = request.match_info["id"]
        asker = by(request)
        had = await self._enrollments.erase(ref, by=asker, door=AuditDoor.REST) if is_device_id(ref) else None
        return problem(404, "no such customer") if had is None else json_answer(Erased(customer=ref, had=had))

    async def consents(self, request: web.Request) -> web.StreamResponse:
        question = FactQuestion(
            kinds=(Consent, Withdrawal), program=_name(PROGRAM, request), customer=_name(CUSTOMER, request),
            after=AFTER.of(request),
        )  # fmt: skip
        page, following = await self._page(question, LIMIT.of(request))
        rows = (consent_body(one, one.fact) for one in page if isinstance(one.fact, Consent | Withdrawal))
        return await json_list(request, ConsentList(consents=[], next=following), "consents", rows)

    async def import_consents(self, request: web.Request) -> web.StreamResponse:
        return await self._import(request, self._enrollments.import_consents)

    async def _import(self, request: web.Request, take: Callable[..., Awaitable[TableReport]]) -> web.Response:
        form, asker = FORMS[request.content_type], by(request)
        raw = await request.read()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInput([f"not UTF-8 at byte {error.start}"]) from error
        return json_answer(table_report(await take(text, form=form, by=asker, door=AuditDoor.REST)))

    async def _page(self, question: FactQuestion, limit: int) -> tuple[list[StoredFact], int | None]:
        found = await self._enrollments.store.facts(question, limit + 1)
        page = found[:limit]
        return page, page[-1].id if page and len(found) > limit else None

    async def _about(self, *, subject: str | None = None, customer: str | None = None) -> list[StoredFact]:
        kinds = (Enrollment, OwnerPreference, Holding, Payee, MeterDevice, Consent, Withdrawal)
        question = FactQuestion(kinds=kinds, subject=subject, customer=customer)
        return await self._enrollments.store.facts(question, OF_ONE_MAX)

    ROUTES = (
        RestRoute(
            operation=ops.LIST_ENROLLMENTS, handler=enrollments, summary="List what is stated of enrollments",
            query=(PROGRAM, SUBJECT, AFTER, LIMIT), answers={200: EnrollmentList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.IMPORT_ENROLLMENTS, scope=Scope.PROGRAMS, handler=import_enrollments,
            summary="Import enrollments: text/csv or application/x-ndjson, in the aggregator's columns",
            query=(BY,), body=tuple(FORMS), rows=EnrollmentRow, answers={200: TableReportBody}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SHOW_ENROLLMENT, handler=enrollment,
            summary="How a device, or a meter of the aggregator, stands in every program, and why",
            answers={200: EnrollmentDetail}, problems=(404, 503),
        ),
        RestRoute(
            operation=ops.LIST_PARTICIPATION, handler=participation,
            summary="Who takes part in a program's running or next event, who does not, and why",
            query=(OFFSET, LIMIT), answers={200: ParticipationList}, problems=(400, 404),
        ),
        RestRoute(
            operation=ops.LIST_ELIGIBILITY, handler=eligibility,
            summary="Which devices a program may have, by nameplate, telemetry, territory and exclusivity",
            query=(OFFSET, FEW), answers={200: EligibilityList}, problems=(400, 404, 503),
        ),
        RestRoute(
            operation=ops.LIST_FACT_CHANGES, handler=changes,
            summary="What one commit of enrollments, consents or customers changed; the audit trail names it",
            query=(OFFSET, LIMIT), answers={200: FactChangeList}, problems=(400, 404, 503),
        ),
        RestRoute(
            operation=ops.LIST_DEADLINES, handler=deadlines,
            summary="What is due within some days: enrollments, activations, consents, locked rates",
            query=(DAYS,), answers={200: DueList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.LIST_CUSTOMERS, handler=customers, summary="List customers, by reference",
            query=(BEHIND, LIMIT), answers={200: CustomerList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.IMPORT_CUSTOMERS, scope=Scope.PII, handler=import_customers,
            summary="Import customers: what they have, who is paid, and, into a store of its own, who they are",
            query=(BY,), body=tuple(FORMS), rows=CustomerRow, answers={200: TableReportBody}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SHOW_CUSTOMER, handler=customer,
            summary="What stands under a customer's reference, and what has to be done",
            answers={200: CustomerDetail}, problems=(404, 503),
        ),
        RestRoute(
            operation=ops.ERASE_CUSTOMER, scope=Scope.PII, handler=erase,
            summary="Erase a customer's personal data for good; what stands under the reference stays",
            query=(BY,), answers={200: Erased}, problems=(400, 404, 503),
        ),
        RestRoute(
            operation=ops.LIST_CONSENTS, handler=consents, summary="List consents and withdrawals",
            query=(PROGRAM, CUSTOMER, AFTER, LIMIT), answers={200: ConsentList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.IMPORT_CONSENTS, scope=Scope.PROGRAMS, handler=import_consents,
            summary="Import consents with their evidence, and withdrawals",
            query=(BY,), body=tuple(FORMS), rows=ConsentRow, answers={200: TableReportBody}, problems=(400, 503),
        ),
    )  # fmt: skip


def _name(of: Text, request: web.Request) -> str | None:
    """An id of the query. Raises InvalidInput."""
    found = of.of(request)
    if found is not None and not is_device_id(found):
        raise InvalidInput([f"{of.name}: letters, digits and _.:- alone, 64 at most"])
    return found
