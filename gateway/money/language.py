"""What a file of agreements may say. Data only: no templates, no expressions, no code."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from gateway.domain.money.contract import Basis
from gateway.domain.money.postings import Account
from gateway.domain.money.split import GetsNothing, SplitBy
from gateway.programs.language import Currency
from gateway.programs.values import Amount, Day, NotEmpty, ProgramModel, ProgramName, Word

Share = Annotated[Amount, Field(le=100)]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ./_-]{0,31}$")]


class ContractTerms(ProgramModel):
    """A version of a contract: what the aggregator keeps, from a day on until just before another."""

    version: Word
    first: Day = Field(alias="from")
    until: Day | None = None
    share_pct: Annotated[Amount, Field(lt=100)] = Decimal(0)
    fixed_per_month: Amount = Decimal(0)
    per_kw_month: Amount = Decimal(0)


class ContractDocument(ProgramModel):
    """A contract with an aggregator, and the programs that it is about."""

    name: Word
    programs: Annotated[tuple[ProgramName, ...], NotEmpty]
    versions: Annotated[tuple[ContractTerms, ...], NotEmpty]


class SplitDocument(ProgramModel):
    """How an amount that comes in one sum for a program is split over homes, from a day on."""

    program: ProgramName
    name: Word
    first: Day = Field(alias="from")
    by: SplitBy
    nothing_for: tuple[GetsNothing, ...] = tuple(GetsNothing)


class PlanTerms(ProgramModel):
    """A version of a pay plan, from a day on."""

    version: Word
    first: Day = Field(alias="from")
    base: Literal[Basis.GROSS, Basis.NET]
    share_pct: Share = Decimal(0)
    fixed_per_month: Amount = Decimal(0)
    per_kwh: Amount = Decimal(0)
    minimum: Amount | None = None
    cap: Amount | None = None
    prorated: bool = True


class PlanDocument(ProgramModel):
    """A pay plan; which customer has it is imported."""

    name: Word
    versions: Annotated[tuple[PlanTerms, ...], NotEmpty]


class BonusDocument(ProgramModel):
    """A sum for a season of a program, for who took part in enough of its events."""

    name: Word
    program: ProgramName
    year: Annotated[int, Field(ge=2000, le=2100)]
    amount: Amount
    least_share_pct: Share = Decimal(0)


class PolicyDocument(ProgramModel):
    """What may be paid."""

    preliminary_pct: Share = Decimal(0)
    least_payout: Amount = Decimal(0)
    held_back_pct: Share = Decimal(0)
    payee_multiple: Annotated[Amount, Field(ge=1)] | None = None
    unexplained_pct: Share = Decimal(1)
    write_off_at_leaving: bool = False


class TaxDocument(ProgramModel):
    """From a year on: payees who got this much are listed for tax reporting."""

    from_year: Annotated[int, Field(ge=2000, le=2100)]
    amount: Amount


class AgreementsDocument(ProgramModel):
    """The whole file; all of its money is in one currency."""

    language: Literal[1]
    currency: Currency
    accounts: dict[Account, Code]
    contracts: tuple[ContractDocument, ...] = ()
    splits: tuple[SplitDocument, ...] = ()
    pay_plans: tuple[PlanDocument, ...] = ()
    bonuses: tuple[BonusDocument, ...] = ()
    policy: PolicyDocument = PolicyDocument()
    tax_reporting: tuple[TaxDocument, ...] = ()
