"""Settings of the services."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field

from gateway import former_names


def divides_a_day(length_s: int) -> int:
    """An interval length. Raises ValueError."""
    if 86_400 % length_s:
        raise ValueError(f"{length_s} s does not divide a day")
    return length_s


IntervalLength = Annotated[int, Field(ge=1, le=86_400, examples=[900]), AfterValidator(divides_a_day)]
Tag = Annotated[str, Field(min_length=1, max_length=64)]


def known_zone(name: str) -> str:
    """The name of a time zone. Raises ValueError."""
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone, like America/Los_Angeles") from error


TimeZone = Annotated[str, AfterValidator(known_zone), Field(max_length=64, validate_default=False)]
OBSERVE: Final = "observe"
ENFORCE: Final = "enforce"


class EligibilitySettings(BaseModel):
    """What a program asks of a battery: `min_kw` for `min_hours` by its nameplate, `completeness_pct` of the last 30
    days measured, and one of the tags `territories`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_kw: float = Field(default=0.0, ge=0, le=10_000)
    min_hours: float = Field(default=0.0, ge=0, le=100)
    completeness_pct: float = Field(default=0.0, ge=0, le=100)
    territories: tuple[Tag, ...] = ()


class ProgramSettings(BaseModel):
    """One grid program. `ceiling_mw` bounds the power of all events that name it together, whatever they ask for.
    `interval_length_s` is the interval length of the devices with the tag `tag`; None = the program's own name.
    `open_ended`: whether its events may go on until further notice. `dispatchers`: the sources of its own dispatcher;
    events of others are local. Where its rules are known, those of the calendar warn its dispatcher;
    `refuse_outside_rules`: those that are verified refuse it too. A home is in one program at most of those that share
    one of the `exclusive_groups`. `enrollment`: whether who takes part in its events follows from enrollment and
    consent, or that is only observed. `time_zone`: in which its days begin and end; `eligibility`: what it asks of a
    battery. `TERMS` stand in the program's file where there is one: here they may narrow it, and not contradict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tag: Tag | None = None
    interval_length_s: IntervalLength | None = None
    ceiling_mw: float | None = Field(default=None, gt=0)
    open_ended: bool = True
    dispatchers: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ("mqtt",)
    refuse_outside_rules: bool = False
    exclusive_groups: tuple[Tag, ...] = ()
    enrollment: Literal["observe", "enforce"] = OBSERVE
    time_zone: TimeZone = "UTC"
    eligibility: EligibilitySettings = EligibilitySettings()


TERMS: Final = ("time_zone", "exclusive_groups", "eligibility")
"""What the program's file says; from the next release on it alone does."""


class MoneySettings(BaseModel):
    """The process that works out performance and money, beside the one that controls. Days of sites are kept for
    `keep_days`, and those that figures rest on for as long as these do; a day is written `late_s` after its end,
    sooner where a program's data is due sooner. It looks for work every `every_s`; where it says nothing for `silent_s`
    it is taken for stuck, and started anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_days: int = Field(default=400, ge=32, le=3650)
    late_s: float = Field(default=21_600.0, ge=0, le=864_000)
    every_s: float = Field(default=20.0, ge=0.05, le=600)
    silent_s: float = Field(default=300.0, ge=0.5, le=3600)


class SourceSettings(BaseModel):
    """One source of events: `mqtt` (the platform), `rest`, or a caller of REST. `ceiling_mw` bounds the power of all
    its events together; `tags`: it may only ask for devices with one of them; `events_per_min`: how many it may send,
    cancellations included but for those of events that have not ended. None = as it likes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ceiling_mw: float | None = Field(default=None, gt=0)
    tags: Annotated[tuple[Tag, ...], Field(min_length=1, max_length=64)] | None = None
    events_per_min: int | None = Field(default=None, ge=1, le=100_000)


def interval_lengths(programs: Mapping[str, ProgramSettings]) -> dict[str, int]:
    """The interval length in s that each tag asks for: of several programs with one tag the shortest."""
    lengths: dict[str, int] = {}
    for name, program in programs.items():
        if program.interval_length_s is not None:
            tag = name if program.tag is None else program.tag
            lengths[tag] = min(program.interval_length_s, lengths.get(tag, program.interval_length_s))
    return lengths


def ceilings_w(bounded: Mapping[str, ProgramSettings] | Mapping[str, SourceSettings]) -> dict[str, float]:
    """The ceiling in W of each program, or source, that has one."""
    return {name: one.ceiling_mw * 1e6 for name, one in bounded.items() if one.ceiling_mw is not None}


class FeederSettings(BaseModel):
    """Bounds of feeders, by the name devices are registered with. `ceiling_kw` bounds what events move on any of them,
    `ceilings_kw` on some; `recharge_kw` bounds what maintenance charges from the grid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ceiling_kw: float | None = Field(default=None, gt=0)
    ceilings_kw: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    recharge_kw: float = Field(default=50.0, gt=0)


class MaintenanceSettings(BaseModel):
    """What is done for batteries that no event has: within `recovery_s` after an event those below their reserve are
    charged up to it; with `full_charge_cycles` those that were not full for so many cycles are charged full, so that
    their SoC is known again, in `full_charge_hours` (UTC, from and to)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recovery_s: float = Field(default=3600.0, ge=0, le=86_400)
    full_charge_cycles: float | None = Field(default=None, gt=0, le=1000)
    full_charge_hours: tuple[int, int] = (0, 24)


class ControlSettings(BaseModel):
    """How the fleet is controlled. `fleet_w_per_s` bounds how fast commanded power moves, both ways; `ceiling_mw` the
    power of each event, whatever it asks for; `horizon_s` smooths the allocation; releases are spread over
    `release_spread_s`; a command has no effect `command_valid_s` after it was made; `warm_up_s` is the longest wait for
    readings after a restart. A member that is given nothing for `rest_after_s` need not be held at 0 W any more; what
    can be sustained is published upstream every `availability_s`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tick_s: float = Field(default=1.0, ge=0.2, le=10)
    fleet_w_per_s: float = Field(default=100_000.0, gt=0)
    ceiling_mw: float = Field(default=100.0, gt=0)
    horizon_s: float = Field(default=600.0, gt=0, le=14_400)
    release_spread_s: float = Field(default=30.0, ge=0, le=900)
    write_deadline_s: float = Field(default=5.0, gt=0, le=60)
    command_valid_s: float = Field(default=20.0, gt=0, le=60)
    warm_up_s: float = Field(default=4.0, ge=0, le=30)
    reading_age_s_max: float = Field(default=120.0, gt=0, le=900)
    site_margin_w: float = Field(default=50.0, ge=0, le=1_000)
    rest_after_s: float = Field(default=60.0, ge=0, le=3600)
    availability_s: float = Field(default=60.0, ge=1, le=3600)
    feeders: FeederSettings = FeederSettings()
    maintenance: MaintenanceSettings = Field(
        default=MaintenanceSettings(),
        validation_alias=AliasChoices("maintenance", former_names.CONFIGURATION["control", "maintenance"]),
    )

    @property
    def step_w(self) -> float:
        """The most that commanded power may move within a tick."""
        return self.fleet_w_per_s * self.tick_s
