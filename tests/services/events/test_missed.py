"""What an event or exclusion names and is not there is said to whoever sent it; what is there counts all the same."""

from gateway.domain.events.book import Outcome
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.events.request import TargetGroup
from gateway.domain.types import EventId
from gateway.services.settings import ProgramSettings
from tests.scenes.world import World, group, homes_of

UNKNOWN = "no block of programs in the configuration names test: no rule of a program applies"


async def test_event_for_nobody_is_accepted_with_what_it_names_in_vain() -> None:
    world = World(homes_of(2))
    await world.go(2)
    answer = await world.submit(s=600, target_w=100, group=group("home-7", "home-01"))
    assert (answer.outcome, answer.warnings) == (Outcome.ACCEPTED, ("not registered: home-7",))
    nobody = await world.submit("f", s=600, target_w=100, group=TargetGroup(tags=("caost",)))
    assert nobody.warnings == ("no device has the tag: caost", "the group has no device now")


async def test_event_that_names_thousands_is_told_the_same_as_one_that_names_a_few() -> None:
    world = World(homes_of(2))
    await world.go(2)
    names = [f"home-{number:02d}" for number in range(6_000)]
    answer = await world.submit(s=600, target_w=100, group=group(*names))
    told = ", ".join(names[2:12])
    assert (answer.outcome, answer.warnings) == (Outcome.ACCEPTED, (f"not registered: {told} and 5988 more",))


async def test_event_of_an_unknown_program_is_warned_about_only_where_programs_are_configured() -> None:
    for programs, warnings in (({}, ()), ({"test": ProgramSettings()}, ()), ({"peak": ProgramSettings()}, (UNKNOWN,))):
        world = World(homes_of(1), programs=programs)
        await world.go(2)
        assert (await world.submit(s=600, target_w=100)).warnings == warnings


async def test_cancellation_of_a_group_that_is_gone_has_no_warning() -> None:
    world = World(homes_of(1))
    await world.submit(s=600, target_w=100)
    answer = await world.submit(s=600, target_w=100, revision=2, cancelled=True, group=group("x"))
    assert (answer.outcome, answer.warnings) == (Outcome.ACCEPTED, ())


async def test_opt_out_of_an_event_that_is_known_has_no_warning() -> None:
    world = World(homes_of(1))
    await world.submit(s=600, target_w=100)
    for event, missed in (("e", ()), ("f", ("no event has the id f now",))):
        one = Exclusion(
            id=event,
            reason="opt_out",
            group=group("home-00"),
            from_ms=world.clock.utc,
            event=EventId(event),
            until_ms=None,
            by="me",
        )
        assert world.dispatcher.missed(one) == missed
