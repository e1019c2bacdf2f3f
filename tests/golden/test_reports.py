"""What the platform is told of a fixed event, what REST shows of it meanwhile and what is counted of it, exactly."""

from gateway.api.views.dispatch import DispatchView
from gateway.domain.events.exclusions import Exclusion
from gateway.domain.types import EventId
from gateway.observability.metrics import registry
from gateway.schemas.event import answer_body
from gateway.services.control.metrics import control_samples, dispatch_samples, fleet_samples
from gateway.services.events.reports import PART
from gateway.signals.platform import ANSWER_TOPIC, DISPATCH_TOPIC, REPORT_TOPICS
from gateway.sinks.mqtt import INTERVAL_TOPIC
from tests.golden import golden, masks
from tests.scenes.world import World, group, homes_of


async def test_platform_is_told_of_an_event_what_stands_in_the_golden_file() -> None:
    world = World(homes_of(3))
    view = DispatchView(
        fleet=world.fleet, dispatcher=world.dispatcher, queries=world.queries, store=world.journal, clock=world.clock
    )
    told: list[object] = [{"dispatch": DISPATCH_TOPIC, "answers": ANSWER_TOPIC, "intervals": INTERVAL_TOPIC}]

    def tell() -> None:
        while (report := world.control.records.changed(PART)) is not None:
            told.append({REPORT_TOPICS["deliveries"]: view.delivery_reports(report)})
        told.extend({REPORT_TOPICS["events"]: body} for body in view.event_reports())
        told.extend({REPORT_TOPICS["availability"]: body} for body in view.availability_report())

    told.append({ANSWER_TOPIC: answer_body(await world.submit("evening", s=150, target_w=3_000))})
    out = Exclusion(id="out", reason="opt_out", group=group("home-01"), from_ms=world.clock.utc, until_ms=None,
               event=EventId("evening"), by="owner")  # fmt: skip
    await world.dispatcher.exclude(out)
    await world.go(20)
    tell()
    shown = {
        "event": (await running_event(view)),
        "events": [body.model_dump() for body in (await view.page(None, 100)).events],
        "exclusions": {"exclusions": [body.model_dump() for body in view.excluded.all()]},
        "quarantine": view.quarantine().model_dump(),
        "availability": {"groups": [body.model_dump() for body in view.availability()]},
    }
    world.homes.refusing.add(0)
    await world.go(135)
    tell()
    shown["event, over"] = await running_event(view)
    told.append({"topics of reports": dict(REPORT_TOPICS)})
    golden("platform.txt", "\n".join(masks.json_text(one) for one in told))
    golden("rest-dispatch.txt", masks.json_text(shown))
    counted = registry(
        [
            lambda: control_samples(world.queries),
            lambda: dispatch_samples(world.dispatcher, world.queries),
            lambda: fleet_samples(world.fleet, world.clock),
        ],
        [],
    )
    golden("metrics-control.txt", masks.metrics((await counted.text()).decode(), values=True))


async def running_event(view: DispatchView) -> object:
    (entry,) = await view.find("evening", None)
    return (await view.one(entry, offset=0, limit=2)).model_dump()
