"""Rows of enrollments, customers and consents, in the aggregator's columns where it has them.

Blank is absent. A column of the aggregator that says nothing to us is taken and ignored. Of a table with personal
columns nothing is repeated, whatever is wrong with it: values may stand in another column than theirs, or in the first
line.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gateway.domain.errors import InvalidInput, refuse
from gateway.domain.programs.facts import DispatchOption, PayeeRole, Subject, SubjectKind
from gateway.domain.types import ID_PATTERN
from gateway.schemas.event import Moment
from gateway.services.devices.row_faults import COLUMN_SHOWN, VALUE_SHOWN, RowFault
from gateway.services.devices.table_rows import TableForm, table_rows

BYTES_MAX = 64 << 20
ROWS_MAX = 200_000
UNKNOWN_COLUMN = "unknown column"
OPEN_YEAR = 2090
"""An end in this year or later stands for none: the aggregator writes 2099 or 9000."""


def _open_end(value: object) -> object:
    """The aggregator's far future is no end; its years are beyond what a time may have."""
    return None if isinstance(value, str) and re.match(r"\d{4}-", value) and int(value[:4]) >= OPEN_YEAR else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Id = Annotated[str, Field(pattern=ID_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
End = Annotated[Moment | None, BeforeValidator(_open_end)]
Line = Annotated[str, Field(min_length=1, max_length=256)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$"), AfterValidator(str.lower)]


def utc_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def end_ms(moment: datetime | None) -> int | None:
    return None if moment is None else utc_ms(moment)


class TableRow(BaseModel):
    """One row. `personal`: columns that say who somebody is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    personal: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _blank(cls, row: Any) -> Any:
        if not isinstance(row, dict):
            return row
        return {name: value for name, value in row.items() if not (isinstance(value, str) and not value.strip())}


def _subject(device: str | None, meter: str | None) -> Subject | None:
    if meter is not None:
        return Subject(kind=SubjectKind.LEAP_METER, id=meter)
    return None if device is None else Subject(kind=SubjectKind.DEVICE, id=device)


class EnrollmentRow(TableRow):
    """The enrollment of a device, or of the aggregator's meter `meter_id`, in a program for a delivery period; a device
    beside a meter is behind it. `since`: from when that is so; without it, from the beginning of the period where
    nothing is known of it, else from now on."""

    device: Id | None = None
    partner_reference: Id | None = None
    meter_id: Id | None = None
    program: Id | None = None
    program_identifier: Id | None = None
    delivery_period: Name
    delivery_period_start_date_time: Moment
    delivery_period_end_date_time: Moment
    enrollment_status: Name
    reasons: Annotated[str, Field(max_length=1024)] = ""
    participation_preference: Name | None = None
    participation_start_time: Moment | None = None
    participation_end_time: End = None
    market_group_id: Id | None = None
    enrollment_deadline_date_time: Moment | None = None
    activation_date_time: Moment | None = None
    dispatch_option: Annotated[DispatchOption | None, BeforeValidator(_lower)] = None
    rate_key: Name | None = None
    rate_locked: Moment | None = None
    rate_locked_until: End = None
    since: Moment | None = None
    # what else the aggregator says
    market_group_name: Any = None
    transmission_region: Any = None
    meter_type: Any = None
    load_types: Any = None
    tags: Any = None
    is_archived: Any = None
    customer_classification: Any = None
    customer_group: Any = None
    connection_references: Any = None
    global_enrollment_status: Any = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if self.subject is None:
            faults.append("device: a device or a meter_id is required")
        if None not in (self.device, self.partner_reference) and self.device != self.partner_reference:
            faults.append("partner_reference: it is another one than device")
        if (self.program is None) == (self.program_identifier is None):
            faults.append("program: either program or program_identifier is required")
        begin, end = self.delivery_period_start_date_time, self.delivery_period_end_date_time
        if begin >= end:
            faults.append("delivery_period_end_date_time: not after its start")
        elif self.since is not None and self.since >= end:
            faults.append("since: not before the end of the delivery period")
        if self.participation_preference is None and (self.participation_start_time or self.participation_end_time):
            faults.append("participation_preference: required beside its times")
        start, until = self.participation_start_time, self.participation_end_time
        if start is not None and until is not None and start >= until:
            faults.append("participation_end_time: not after its start")
        if (self.rate_key is None) != (self.rate_locked is None):
            faults.append("rate_locked: a rate_key needs it, and it needs a rate_key")
        if self.rate_key is None and self.rate_locked_until is not None:
            faults.append("rate_locked_until: needs a rate_key")
        refuse(faults)
        return self

    @property
    def own_device(self) -> str | None:
        return self.device or self.partner_reference

    @property
    def subject(self) -> Subject | None:
        return _subject(self.own_device, self.meter_id)


class CustomerRow(TableRow):
    """A customer by reference; what they have (a device or a meter) and since when, who is paid for that, and, for the
    peer that demands it, who they are."""

    personal = frozenset({
        "end_customer_name", "end_customer_title", "end_customer_email", "end_customer_phone_number",
        "end_customer_company_name", "street_1", "street_2", "city", "postal_code", "state_or_province_code",
        "country_code", "electric_service_account_number",
    })  # fmt: skip

    customer: Id
    device: Id | None = None
    meter_id: Id | None = None
    held_since: Moment | None = None
    held_until: End = None
    payee: Id | None = None
    payee_role: Annotated[PayeeRole, BeforeValidator(_lower)] = PayeeRole.OWNER
    paid_since: Moment | None = None
    paid_until: End = None
    end_customer_name: Line | None = None
    end_customer_title: Line | None = None
    end_customer_email: Annotated[str | None, Field(pattern=r"^[^@\s]{1,64}@[^@\s]{1,128}$")] = None
    end_customer_phone_number: Line | None = None
    end_customer_company_name: Line | None = None
    street_1: Line | None = None
    street_2: Line | None = None
    city: Line | None = None
    postal_code: Annotated[str | None, Field(pattern=r"^[0-9]{5}(-[0-9]{4})?$")] = None
    state_or_province_code: Annotated[str | None, Field(pattern=r"^[A-Z]{2}$")] = None
    country_code: Annotated[str | None, Field(pattern=r"^[A-Z]{2}$")] = None
    electric_service_account_number: Line | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if self.device is not None and self.meter_id is not None:
            faults.append("meter_id: stands alone, without a device")
        if self.subject is None and (self.held_since or self.held_until):
            faults.append("device: a device or a meter_id is required beside held_since and held_until")
        if self.subject is not None and self.held_since is None:
            faults.append("held_since: since when does the customer have it?")
        if self.payee is not None and (self.subject is None or self.paid_since is None):
            faults.append("paid_since: a payee needs it, and a device or a meter_id")
        for since, until, name in (
            (self.held_since, self.held_until, "held_until"), (self.paid_since, self.paid_until, "paid_until"),
        ):  # fmt: skip
            if since is not None and until is not None and since >= until:
                faults.append(f"{name}: not after its beginning")
        refuse(faults)
        return self

    @property
    def subject(self) -> Subject | None:
        return _subject(self.device, self.meter_id)

    @property
    def person(self) -> dict[str, str]:
        """What is personal, by column."""
        return {name: value for name in sorted(self.personal) if (value := getattr(self, name)) is not None}


class ConsentRow(TableRow):
    """A customer's consent to a program with its evidence, and (`withdrawn`) its withdrawal, which may come alone."""

    customer: Id
    program: Id
    document_sha256: Sha256 | None = None
    given: Moment | None = None
    expires: End = None
    withdrawn: Moment | None = None
    by: Annotated[str, Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if self.given is None and self.withdrawn is None:
            faults.append("given: when was it given, or withdrawn?")
        if (self.given is None) != (self.document_sha256 is None):
            faults.append("document_sha256: a consent that was given needs it")
        if self.given is not None and self.expires is not None and self.expires <= self.given:
            faults.append("expires: not after it was given")
        if self.given is not None and self.withdrawn is not None and self.withdrawn < self.given:
            faults.append("withdrawn: before it was given")
        refuse(faults)
        return self


def read_table(
    text: str, kind: type[TableRow], *, form: TableForm
) -> tuple[list[tuple[int, Any]], dict[int, list[RowFault]]]:
    """The good rows of a table with their lines, and what is wrong with the others, by line. Raises InvalidInput where
    it is no such table at all."""
    if len(text) > BYTES_MAX:
        raise InvalidInput([f"larger than {BYTES_MAX} bytes"])
    good: list[tuple[int, Any]] = []
    bad: dict[int, list[RowFault]] = {}
    for number, (line, row) in enumerate(_rows(text, kind, form)):
        if number >= ROWS_MAX:
            raise InvalidInput([f"line {line}: more than {ROWS_MAX} rows"])
        if isinstance(row, str):
            bad[line] = [RowFault(column="", problem=row)]
            continue
        try:
            good.append((line, kind.model_validate(row)))
        except ValidationError as error:
            bad[line] = list(_faults(error, kind))
    return good, bad


def _rows(text: str, kind: type[TableRow], form: TableForm) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The rows as they stand there. Raises InvalidInput, which repeats nothing of a table with personal columns."""
    try:
        yield from table_rows(text, form=form, kind=kind)
    except InvalidInput as error:
        if not kind.personal:
            raise
        told = [problem for problem in error.problems if UNKNOWN_COLUMN not in problem]
        hidden = len(error.problems) - len(told)
        raise InvalidInput([f"line 1: {UNKNOWN_COLUMN}s: {hidden}"] * bool(hidden) + told) from None


def _faults(error: ValidationError, kind: type[TableRow]) -> list[RowFault]:
    found: list[RowFault] = []
    for fault in error.errors(include_url=False, include_context=False):
        column = str(fault["loc"][0])[:COLUMN_SHOWN] if fault["loc"] else ""
        text = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            found.append(RowFault(column="" if kind.personal else column, problem=UNKNOWN_COLUMN))
        elif fault["type"] == "missing":
            found.append(RowFault(column=column, problem="required"))
        elif not column:
            found += [_of_row(line) for line in text.splitlines()]
        else:
            shown = None if kind.personal else str(fault["input"])[:VALUE_SHOWN]
            found.append(RowFault(column=column, problem=text, value=shown))
    return found


def _of_row(line: str) -> RowFault:
    column, colon, problem = line.partition(": ")
    return RowFault(column=column, problem=problem) if colon else RowFault(column="", problem=line)
