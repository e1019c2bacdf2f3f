"""Who is dispatched under enrollment that is observed, and under one that is enforced."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.programs.enrollment import EnrollmentBook
from gateway.domain.programs.facts import (
    Consent,
    DeliveryPeriod,
    EnrollmentStatus,
    Fact,
    OwnerPreference,
    Preference,
)
from gateway.domain.registry.territory import Area
from gateway.observability.metrics import Sample
from gateway.services.programs.participation import ProgramParticipation
from gateway.services.settings import ProgramSettings
from tests.builders.fakes import FACTS, home
from tests.domain.programs.stated import PROGRAM as SHARED
from tests.domain.programs.stated import consented, device, enrolled, held, withdrawn
from tests.domain.programs.test_enrollment import fact_sets
from tests.scenes.world import World, group, homes_of

PROGRAM = "test"
LATER = DeliveryPeriod(name="season", from_ms=0, until_ms=1 << 60)
TARGET_W = 3_000


class Scene:
    """Three homes; `facts` count from the start on."""

    def __init__(self, enrollment: Literal["observe", "enforce"], *facts: Fact, source: str = "rest") -> None:
        self.book = EnrollmentBook()
        self.source = source
        for fact in facts:
            self.book.add(fact)
        self.programs = {PROGRAM: ProgramSettings(enrollment=enrollment)}
        self.world = World(homes_of(3), programs=self.programs, participation=self._participation)

    def _participation(self, fleet: Fleet) -> ProgramParticipation:
        self.participation = ProgramParticipation(self.book, fleet=fleet, programs=self.programs)
        return self.participation

    async def run(self, s: int = 20, **other: Any) -> "Scene":
        await self.world.submit(s=3_600, target_w=TARGET_W, source=self.source, **other)
        await self.world.go(s)
        return self

    def controlled(self) -> list[str]:
        return [name for name, who in zip(("home-00", "home-01", "home-02"), self.world.authority(), strict=True)
                if who == "CONTROLLED"]  # fmt: skip

    def metric(self, name: str, **labels: str) -> float:
        found: list[Sample] = [one for one in self.participation.samples() if one.name == name]
        return sum(one.value for one in found if labels.items() <= dict(one.labels).items())

    @property
    def now_ms(self) -> int:
        return self.world.clock.utc


def member(number: int, status: EnrollmentStatus = EnrollmentStatus.ACTIVE) -> list[Fact]:
    home = device(f"home-{number:02d}")
    return [
        enrolled(home, status, period=LATER, program=PROGRAM, revision=10 * number + 1),
        held(home, f"c-{number}", revision=10 * number + 2),
        consented(f"c-{number}", program=PROGRAM, revision=10 * number + 3),
    ]


ALL = [*member(0), *member(1), *member(2)]
LEFT_OUT = "gateway_enrollment_left_out_devices"


async def test_a_fleet_without_enrollments_is_dispatched_while_they_are_observed() -> None:
    scene = await Scene("observe").run()
    assert scene.controlled() == ["home-00", "home-01", "home-02"]
    assert scene.world.progress().delivered_w == pytest.approx(TARGET_W, rel=0.05)
    assert scene.metric(LEFT_OUT, enrollment="observe", reason="consent_missing") == 3


async def test_nobody_is_dispatched_under_enforce_without_enrollment_and_consent() -> None:
    scene = await Scene("enforce").run()
    assert scene.controlled() == []
    assert scene.metric(LEFT_OUT, enrollment="enforce", reason="consent_missing") == 3
    assert {row["status"] for row in scene.world.rows().values()} == {"opted_out"}


async def test_who_is_enrolled_and_agreed_is_dispatched_and_makes_up_for_the_others() -> None:
    scene = await Scene("enforce", *member(0), *member(1)).run()
    assert scene.controlled() == ["home-00", "home-01"]
    assert scene.world.progress().delivered_w == pytest.approx(TARGET_W, rel=0.05)


async def test_a_program_that_nobody_knows_is_said_and_leaves_nobody_still() -> None:
    scene = await Scene("enforce").run(program="other")
    assert scene.controlled() == ["home-00", "home-01", "home-02"]
    assert scene.metric("gateway_enrollment_unknown_program_events") == 1
    assert scene.participation.warnings() == [
        "unknown program: event e of other, which neither configuration nor programs_dir knows"
    ]
    assert scene.participation.enrollment("other") is None


async def test_consent_and_owners_choices_are_kept_in_a_program_that_nobody_knows() -> None:
    facts: list[Fact] = [
        OwnerPreference(subject=device("home-00"), from_ms=0, preference=Preference.PAUSED, revision=90),
        held(device("home-01"), "c-1", revision=91),
        consented("c-1", program="other", revision=92), withdrawn("c-1", 1, program="other", revision=93),
    ]  # fmt: skip
    scene = await Scene("observe", *facts).run(program="other")
    assert scene.controlled() == ["home-02"]
    assert scene.participation.warnings()[0].endswith(", 2 homes are kept out")
    slots = np.arange(3, dtype=np.int32)
    assert scene.participation.dispatched("other", None, slots, scene.now_ms).tolist() == [False, False, True]


async def test_a_known_program_has_no_warning_of_being_unknown() -> None:
    scene = await Scene("observe").run()
    assert (scene.metric("gateway_enrollment_unknown_program_events"), scene.participation.warnings()) == (0, [])


async def test_a_dispatch_of_our_own_leaves_out_who_is_not_active() -> None:
    pending = [*member(0), *member(1, EnrollmentStatus.PENDING), *member(2)]
    scene = await Scene("enforce", *pending).run(group=group("home-00", "home-01"))
    assert scene.controlled() == ["home-00"]
    assert scene.metric(LEFT_OUT, reason="not_active") == 1


async def test_who_the_programs_dispatcher_names_is_dispatched_although_not_active_and_that_is_said() -> None:
    pending = [*member(0), *member(1, EnrollmentStatus.PENDING), *member(2)]
    scene = await Scene("enforce", *pending, source="mqtt").run(group=group("home-00", "home-01"))
    assert scene.controlled() == ["home-00", "home-01"]
    assert scene.metric("gateway_enrollment_mismatch_devices") == 1
    assert scene.participation.warnings() == [
        "enrollment mismatch: event e of test names 1 homes that are not active"
    ]  # fmt: skip


async def test_a_home_that_is_named_is_out_once_the_peer_says_later_that_it_is_not_active() -> None:
    pending = [*member(0), *member(1, EnrollmentStatus.PENDING), *member(2)]
    scene = await Scene("enforce", *pending, source="mqtt").run(group=group("home-00", "home-01"))
    assert scene.controlled() == ["home-00", "home-01"]
    says = enrolled(device("home-01"), EnrollmentStatus.INELIGIBLE, period=LATER, program=PROGRAM, revision=99)
    scene.book.add(replace(says, from_ms=scene.now_ms))
    await scene.world.go(60)
    assert scene.controlled() == ["home-00"]
    assert scene.participation.warnings() == []
    assert scene.metric(LEFT_OUT, reason="ineligible") == 1


async def test_a_group_that_the_programs_dispatcher_addresses_whole_is_no_naming() -> None:
    pending = [*member(0), *member(1, EnrollmentStatus.PENDING), *member(2)]
    scene = await Scene("enforce", *pending, source="mqtt").run(group=TargetGroup(all=True))
    assert scene.controlled() == ["home-00", "home-02"]


async def test_without_consent_nobody_is_dispatched_whoever_names_them() -> None:
    facts = [*member(0), *(fact for fact in member(1) if not isinstance(fact, Consent))]
    scene = await Scene("enforce", *facts, source="mqtt").run(group=group("home-00", "home-01"))
    assert scene.controlled() == ["home-00"]
    assert scene.metric("gateway_enrollment_mismatch_devices") == 0


@pytest.mark.parametrize("preference", [Preference.PAUSED, Preference.LEAVING, Preference.UNKNOWN])
async def test_an_owner_who_opted_out_is_never_dispatched_whoever_names_them(preference: Preference) -> None:
    out = OwnerPreference(subject=device("home-01"), from_ms=0, preference=preference, revision=99)
    scene = await Scene("enforce", *ALL, out, source="mqtt").run(group=group("home-00", "home-01"))
    assert scene.controlled() == ["home-00"]


async def test_a_device_that_nobody_knows_is_none_and_is_said() -> None:
    scene = await Scene("enforce", *ALL, source="mqtt").run(group=group("home-00", "home-77"))
    assert scene.controlled() == ["home-00"]
    assert scene.metric("gateway_enrollment_unknown_devices") == 1
    assert scene.participation.warnings() == ["event e of test names 1 devices that nobody knows"]


async def test_who_an_event_names_is_looked_up_again_once_the_fleet_has_changed() -> None:
    facts = [*ALL, *member(77, EnrollmentStatus.PENDING)]
    scene = await Scene("enforce", *facts, source="mqtt").run(group=group("home-00", "home-77", "home-78"))
    assert scene.metric("gateway_enrollment_unknown_devices") == 2
    scene.world.fleet.register(home("home-77"), FACTS)
    now = scene.world.clock.now()
    events = scene.world.dispatcher.active(now)
    assert len(events) == 1
    without = scene.participation.without(events, scene.world.dispatcher.members, now)
    assert scene.metric("gateway_enrollment_unknown_devices") == 1
    assert scene.metric("gateway_enrollment_mismatch_devices") == 1
    assert without == {}


async def test_a_program_that_is_only_observed_raises_no_alarm() -> None:
    pending = [*member(0, EnrollmentStatus.PENDING), *member(1)]
    scene = await Scene("observe", *pending, source="mqtt").run(group=group("home-00", "home-01", "home-02", "home-77"))
    assert scene.controlled() == ["home-00", "home-01", "home-02"]
    assert scene.participation.warnings() == []
    assert scene.metric("gateway_enrollment_mismatch_devices") == 0
    assert scene.metric("gateway_enrollment_unknown_devices") == 0
    assert scene.metric(LEFT_OUT, enrollment="observe") == 1


async def test_consent_that_ends_in_mid_event_hands_the_home_back_and_the_others_make_up() -> None:
    scene = Scene("enforce", *ALL)
    ends = consented("c-1", program=PROGRAM, expires_ms=scene.now_ms + 30_000, revision=99)
    scene.book.add(ends)
    await scene.run(25)
    assert scene.controlled() == ["home-00", "home-01", "home-02"]
    await scene.world.go(60)
    assert scene.controlled() == ["home-00", "home-02"]
    assert scene.world.rows()["home-01"]["status"] == "opted_out"
    assert scene.world.progress().delivered_w == pytest.approx(TARGET_W, rel=0.05)


async def test_a_withdrawal_counts_in_the_running_event() -> None:
    scene = await Scene("enforce", *ALL).run(25)
    scene.book.add(withdrawn("c-1", scene.now_ms, program=PROGRAM, revision=99))
    await scene.world.go(60)
    assert scene.controlled() == ["home-00", "home-02"]


async def test_consent_of_a_whole_fleet_that_ends_at_once_is_no_step_for_the_grid() -> None:
    scene = Scene("enforce", *ALL)
    for number in range(3):
        scene.book.add(
            consented(f"c-{number}", program=PROGRAM, expires_ms=scene.now_ms + 60_000, revision=100 + number)
        )
    await scene.run(120)
    assert scene.controlled() == []
    assert scene.world.steps_w() <= scene.world.settings.fleet_w_per_s * 1.01


async def test_a_delivery_period_that_ends_between_two_events_ends_with_it() -> None:
    scene = Scene("enforce")
    first = DeliveryPeriod(name="first", from_ms=0, until_ms=scene.now_ms + 60_000)
    facts = [enrolled(device("home-00"), period=first, program=PROGRAM), *member(0)[1:], *member(1)]
    for fact in facts:
        scene.book.add(fact)
    await scene.world.submit("one", s=40, target_w=1_000)
    await scene.world.go(30)
    assert scene.controlled() == ["home-00", "home-01"]
    await scene.world.go(60)
    await scene.world.submit("two", s=40, target_w=1_000)
    await scene.world.go(30)
    assert scene.controlled() == ["home-01"]


async def test_a_restart_in_mid_event_goes_on_with_the_same_members() -> None:
    scene = await Scene("enforce", *member(0), *member(1)).run()
    scene.world.restart(away_s=3)
    await scene.world.go(20)
    assert scene.controlled() == ["home-00", "home-01"]


async def test_who_is_enrolled_is_in_an_exclusion_of_the_program_whatever_the_status_and_at_once_when_one_joins() -> (
    None
):
    scene = Scene("observe", *member(0, EnrollmentStatus.PENDING))
    now = scene.world.clock.utc
    await scene.world.dispatcher.exclude(
        Exclusion(id="x", reason="other", area=Area(programs=(PROGRAM,)), from_ms=now, until_ms=now + 3_600_000)
    )
    await scene.run(program="else")
    assert scene.controlled() == ["home-01", "home-02"]
    for fact in member(2):
        scene.book.add(fact)
    await scene.world.go(2)
    assert scene.controlled() == ["home-01"]
    assert scene.participation.programs() == {PROGRAM}


@given(facts=fact_sets(), data=st.data())
def test_what_is_worked_out_of_a_few_is_what_is_worked_out_of_all_whenever_it_is_asked(
    facts: list[Fact], data: st.DataObject
) -> None:
    fleet = World(homes_of(3)).fleet
    book = EnrollmentBook()
    programs = {SHARED: ProgramSettings(enrollment="enforce")}
    kept = ProgramParticipation(book, fleet=fleet, programs=programs)
    at_ms = data.draw(st.integers(0, 20))
    for fact in facts:
        book.add(fact)
        if not data.draw(st.booleans()):
            continue
        at_ms = max(at_ms + data.draw(st.integers(-1, 2)), 0)
        fresh = ProgramParticipation(book, fleet=fleet, programs=programs)
        for program in (SHARED, "ra"):
            found, anew = kept.standing(program, at_ms), fresh.standing(program, at_ms)
            assert found.left_out.tolist() == anew.left_out.tolist()
            assert found.mismatched.tolist() == anew.mismatched.tolist()
            for column in ("status", "stated_ms", "consent", "preference", "customer"):
                assert getattr(found.membership, column).tolist() == getattr(anew.membership, column).tolist(), column


def test_one_fact_is_worked_out_without_looking_at_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []
    whole = EnrollmentBook.membership

    def membership(book: EnrollmentBook, program: str, at_ms: int, among: Any = None) -> Any:
        asked.append(None if among is None else len(among))
        return whole(book, program, at_ms, among)

    monkeypatch.setattr(EnrollmentBook, "membership", membership)
    scene = Scene("enforce", *ALL)
    scene.participation.standing(PROGRAM, scene.now_ms)
    scene.book.add(withdrawn("c-1", scene.now_ms, program=PROGRAM, revision=99))
    scene.participation.standing(PROGRAM, scene.now_ms + 1)
    assert asked == [None, 1]
