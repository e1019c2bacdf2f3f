"""What a home did on a day, over REST."""

from datetime import UTC, datetime

from gateway.domain.events.delivery_records import RecordRows, Status
from gateway.domain.journal.changes import EventDelivered
from gateway.domain.types import DeviceId, EventId
from tests.api.test_app import rig


def delivered(name: str, start: datetime, *devices: str) -> EventDelivered:
    """An event of an hour in which each device was asked for 4 kWh and gave 3."""
    rows = RecordRows()
    rows.grow(len(devices))
    columns = {each: getattr(rows, each)[: len(devices)] for each in RecordRows.SPEC if each != "slot"}
    columns["status"][:] = int(Status.COMPLETED)
    columns["asked_wh"][:], columns["delivered_wh"][:], columns["shortfall_wh"][:] = 4_000.0, 3_000.0, 1_000.0
    start_ms = round(start.timestamp() * 1000)
    return EventDelivered(
        event=EventId(name), occurrence_ms=start_ms, ended_ms=start_ms + 3_600_000,
        devices=tuple(DeviceId(device) for device in devices), columns=columns,
    )  # fmt: skip


async def test_a_day_is_told_with_the_events_of_that_day_and_of_this_home_alone() -> None:
    async with rig() as r:
        one, other = r.world.fleet.ids[0], r.world.fleet.ids[1]
        await r.world.journal.put_away([
            delivered("before", datetime(2026, 7, 1, 10, tzinfo=UTC), one),
            delivered("e-1", datetime(2026, 7, 2, 0, tzinfo=UTC), one, other),
            delivered("e-2", datetime(2026, 7, 2, 2, tzinfo=UTC), other),
        ])  # fmt: skip
        path = f"/v1/homes/{one}/explain"
        told = await r.ask("GET", f"{path}?on=2026-07-01&zone=America/New_York")
        assert (told["home"], told["on"], told["zone"]) == (one, "2026-07-01", "America/New_York")
        (battery,) = told["batteries"]
        assert [each["event"] for each in battery["events"]] == ["before", "e-1"]
        assert battery["events"][1]["shortfall_wh"] == 1_000.0
        assert f"nothing was measured of {one}" in battery["says"][0]
        assert battery["says"][2].startswith(
            "20:00 to 21:00: event e-1, whose source is not known. It was asked to give"
        )
        assert battery["discharge_wh"] is None


async def test_who_is_asked_for_wrongly_is_told_why() -> None:
    async with rig() as r:
        path = f"/v1/homes/{r.world.fleet.ids[0]}/explain"
        await r.ask("GET", "/v1/homes/nobody/explain?on=2026-07-01", status=404)
        refused = await r.ask("GET", f"{path}?on=2026-02-30", status=400)
        assert refused["problems"][0].startswith("on: ")
        refused = await r.ask("GET", f"{path}?zone=Mars/Olympus", status=400)
        assert refused["problems"] == ["zone: 'Mars/Olympus' is no time zone, like America/Los_Angeles"]
        await r.ask("GET", f"{path}?on=9999-12-31", status=400)
        assert len((await r.ask("GET", path))["batteries"]) == 1
