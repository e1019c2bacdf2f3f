"""Moves: a device that is not free is handed back where and as what it is first; one that is free goes at once."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.domain.commands import CommandBatch, CommandOp, WriteReport
from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.device import Device, DeviceConnection
from gateway.domain.journal.changes import (
    AuditDoor,
    Change,
    ControlEnded,
    ControlTaken,
    PriorRestored,
    PriorSaved,
    ReserveChanged,
)
from gateway.domain.journal.stored import Departure
from gateway.domain.types import DeviceId, EventId
from gateway.profiles.compile import Codec
from gateway.services.devices import registry
from gateway.services.devices.connection_rows import Place
from gateway.services.devices.import_rows import parse_rows
from gateway.services.devices.moves import who_goes_where
from gateway.services.devices.registry import DeviceRegistry, Imported
from gateway.services.devices.row_faults import RowFault
from tests.builders.fakes import FACTS, MemoryJournal, home, message_product
from tests.builders.profiles import HTTP, MODBUS, MQTT, changed, compiled
from tests.scenes.waiting import turns
from tests.scenes.world import World
from tests.services.devices.test_connection_rows import row

OTHER = changed(MODBUS, lambda raw: raw.update(profile="other"))
CODECS: Mapping[str, Codec] = {
    name: replace(codec, facts=FACTS)
    for name, codec in (
        ("p", message_product()), ("modbus", compiled(MODBUS)), ("http", compiled(HTTP)), ("mqtt", compiled(MQTT)),
        ("other", compiled(OTHER)), ("q", message_product("q")),
    )
}  # fmt: skip
HERE, THERE = {"address": "modbus://10.0.0.5"}, {"address": "modbus://10.0.0.6"}


class Slow(MemoryJournal):
    """A disk that hangs on commits with these kinds of changes until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs: tuple[type, ...] = ()
        self.go = asyncio.Event()

    async def commit(self, changes: Sequence[Change]) -> None:
        if any(isinstance(change, self.hangs) for change in changes):
            await self.go.wait()
        await super().commit(changes)


def made(**row_: object) -> Device:
    parsed = parse_rows(json.dumps(row_), form="jsonl", profiles=CODECS)
    assert not parsed.bad, parsed.bad[0].problem
    return parsed.devices[0]


@dataclass
class ImportBench:
    """A fleet under control and the registry that it was registered by. `saved` as the sessions keep it."""

    rows: Sequence[Mapping[str, object]]
    journal: Slow = field(default_factory=Slow)
    saved: dict[DeviceId, Mapping[str, float | str | bool]] = field(default_factory=dict)
    world: World = field(init=False)
    inventory: DeviceRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.world = World([able(made(**row_)) for row_ in self.rows], journal=self.journal)
        self.begin()

    def begin(self, controlled: Sequence[DeviceId] = ()) -> None:
        self.inventory = DeviceRegistry(
            clock=ManualClock(), fleet=self.world.fleet, journal=self.journal, codecs=CODECS, saved=self.saved
        )
        self.inventory.load(self.world.devices, controlled)

    async def register(self, *rows: Mapping[str, object]) -> Imported:
        """Import rows the way a request does."""
        text = "\n".join(json.dumps(dict(each)) for each in rows)
        parsed = parse_rows(text, form="jsonl", profiles=self.inventory.profiles, places=self.inventory.places)
        return await self.inventory.register_rows(parsed)

    async def controlled(self, s: int = 30) -> None:
        """Take everybody under control for as long as the event runs."""
        await self.world.submit(s=s, target_w=2_000)
        await self.world.go(3)
        assert set(self.world.authority()) == {"CONTROLLED"}

    async def released(self) -> None:
        await self.world.dispatcher.cancel("e")
        await self.world.go(40)
        assert set(self.world.authority()) == {"DEVICE"}

    def waiting(self) -> dict[str, str]:
        """Who waits to leave, and for what."""
        return {name: self.inventory.waits_for(name) for name in self.inventory.departures}

    async def passed(self, s: int) -> None:
        """Time goes on, with what lets devices go."""
        for _ in range(s):
            await self.world.go(1)
            await self.inventory.depart()

    def url(self, name: str = "a") -> str:
        connection = self.inventory.devices[DeviceId(name)].connection
        return connection.url if connection is not None else ""


def able(device: Device) -> Device:
    """The same device at a home that may do everything."""
    of_home = home(device.id, profile=device.profile, connection=device.connection, experimental=True)
    return replace(of_home, site=device.site, tags=device.tags)


# -- what has to wait ----------------------------------------------------------------------------------------


async def test_row_of_a_device_under_control_that_moves_waits_in_words_and_the_others_are_taken() -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7")])
    await bench.controlled(s=600)
    tagged = row("modbus", "b", address="modbus://10.0.0.7", tags=["new"])
    done = await bench.register(row("modbus", "a", **THERE), tagged, row("p", "c"))
    assert (done.rows, done.registered, done.departing, done.bad) == (3, 2, 1, [])
    assert [(note.line, note.note) for note in done.notes] == [
        (1, "a: is under control; it changes address from modbus://10.0.0.5 to modbus://10.0.0.6 once it is free")
    ]
    assert (bench.url(), bench.inventory.devices[DeviceId("b")].tags) == ("modbus://10.0.0.5", ("new",))
    assert bench.waiting() == {"a": "under control"}
    bench.world.homes.silent = {2}
    await bench.passed(10)
    assert bench.waiting() == {}
    assert (bench.url(), bench.world.fleet.departing) == ("modbus://10.0.0.6", set())


async def test_device_that_moves_is_handed_back_where_it_is_and_comes_back_to_its_event_where_it_goes() -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7", site="next door")])
    await bench.controlled(s=600)
    written = len(bench.world.homes.writes)
    await bench.register(row("modbus", "a", **THERE))
    there: list[tuple[str, CommandOp]] = []
    for _ in range(20):
        await bench.world.go(1)
        there += [(bench.url(), op) for slot, op, *_ in bench.world.homes.writes[written:] if slot == 0]
        written = len(bench.world.homes.writes)
        assert bench.world.authority()[1] == "CONTROLLED"
        await bench.inventory.depart()
    assert there[0] == ("modbus://10.0.0.5", CommandOp.RELEASE)
    assert {url for url, op in there if op is CommandOp.RELEASE} == {"modbus://10.0.0.5"}
    assert {url for url, op in there if op is CommandOp.SETPOINT} == {"modbus://10.0.0.6"}
    assert bench.world.authority() == ["CONTROLLED", "CONTROLLED"]


async def test_departure_outlasts_a_restart_and_a_disk_that_is_full() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    await bench.controlled(s=600)
    await bench.register(row("modbus", "a", **THERE))
    bench.world.restart(away_s=1)
    state = bench.journal.load()
    assert [known.device for known in state.departures] == ["a"]
    bench.begin(list(state.controlled))
    bench.inventory.load(bench.world.devices, list(state.controlled), departures=state.departures)
    assert bench.waiting() == {"a": "under control"}
    bench.journal.failing = True
    for _ in range(5):
        await bench.world.go(1)
        with suppress(StorageError):
            await bench.inventory.depart()
    assert bench.url() == "modbus://10.0.0.5"
    bench.journal.failing = False
    await bench.passed(10)
    assert (bench.url(), bench.waiting(), bench.journal.load().departures) == ("modbus://10.0.0.6", {}, ())


async def test_row_with_the_present_place_withdraws_a_departure_and_a_newer_one_replaces_it() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    await bench.controlled(s=600)
    await bench.register(row("modbus", "a", **THERE))
    await bench.register(row("modbus", "a", address="modbus://10.0.0.9"))
    assert [known.wanted.connection.url for known in bench.journal.load().departures] == ["modbus://10.0.0.9"]  # type: ignore[union-attr]
    await bench.register(row("modbus", "a", **HERE))
    assert (bench.waiting(), bench.world.fleet.departing, bench.journal.load().departures) == ({}, set(), ())
    await bench.passed(10)
    assert (bench.url(), bench.world.authority()) == ("modbus://10.0.0.5", ["CONTROLLED"])


async def test_two_under_control_that_change_places_both_go() -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", **THERE)])
    await bench.controlled(s=600)
    done = await bench.register(row("modbus", "a", **THERE), row("modbus", "b", **HERE))
    assert (done.departing, done.bad) == (2, [])
    await bench.passed(20)
    assert (bench.url("a"), bench.url("b"), bench.waiting()) == ("modbus://10.0.0.6", "modbus://10.0.0.5", {})


async def test_device_that_waits_for_a_place_and_is_given_another_one_goes_there() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    bench.world.fleet.control.authority[0] = Authority.CONTROLLED
    await bench.register(row("modbus", "a", **THERE))
    await bench.register(row("modbus", "x", **THERE))
    bench.world.fleet.control.authority[0] = Authority.DEVICE
    assert await bench.inventory.depart() == []
    assert "'a' and 'x' are one and the same" in bench.waiting()["a"]
    done = await bench.register(row("modbus", "a", address="modbus://10.0.0.9"))
    assert (done.registered, done.departing, done.bad) == (1, 0, [])
    assert (bench.url(), bench.waiting(), bench.journal.load().departures) == ("modbus://10.0.0.9", {}, ())
    assert bench.world.fleet.departing == set()


async def test_device_whose_next_product_is_not_installed_any_more_waits_and_says_so() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    gone = Departure(
        device=DeviceId("a"), wanted=home("a", profile="gone"), since_ms=0, by="ann", door=AuditDoor.REST
    )  # fmt: skip
    bench.inventory.load([], departures=[gone])
    assert (await bench.inventory.depart(), bench.url()) == ([], "modbus://10.0.0.5")
    assert bench.waiting() == {"a": "the profile 'gone' is not installed"}
    await bench.register(row("modbus", "a", **HERE))
    assert bench.waiting() == {}


async def test_reserve_of_a_row_counts_at_once_and_what_its_owner_chooses_while_it_waits_wins() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    bench.world.fleet.control.authority[0] = Authority.CONTROLLED
    await bench.register(row("modbus", "a", **THERE, reserve_pct=40))
    reserve_pct = bench.world.fleet.nameplate.owner_reserve_pct
    assert (reserve_pct[0], bench.url()) == (40.0, "modbus://10.0.0.5")
    reserve_pct[0] = 15.0
    bench.world.fleet.control.authority[0] = Authority.DEVICE
    assert await bench.inventory.depart() == ["a"]
    assert (reserve_pct[0], bench.url()) == (15.0, "modbus://10.0.0.6")
    assert [device.reserve_pct for device in bench.journal.load().devices] == [15.0]


# -- what is removed -----------------------------------------------------------------------------------------


async def test_device_that_is_removed_is_handed_back_first_and_its_event_goes_on_without_it() -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7")])
    await bench.controlled(s=600)
    assert await bench.inventory.remove([DeviceId("a")]) == ["a"]
    assert bench.waiting() == {"a": "under control"}
    await bench.passed(10)
    assert (set(bench.inventory.devices), bench.waiting()) == ({"b"}, {})
    released = [op for slot, op, *_ in bench.world.homes.writes if slot == 0][-1]
    assert released is CommandOp.RELEASE
    state = bench.journal.load()
    assert ("a" in state.controlled, state.removed) == (False, ("a",))
    written = len(bench.world.homes.writes)
    await bench.passed(10)
    assert {slot for slot, *_ in bench.world.homes.writes[written:]} <= {1}
    assert (await bench.register(row("modbus", "a", **THERE))).registered == 1
    assert bench.world.fleet.slot_of == {"b": 1, "a": 0}


async def test_removal_of_what_is_not_registered_is_refused_and_removes_nothing() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    with pytest.raises(InvalidInput, match="'x' is not registered"):
        await bench.inventory.remove([DeviceId("a"), DeviceId("x")])
    assert set(bench.inventory.devices) == {"a"}
    assert await bench.inventory.remove([DeviceId("a")]) == []
    assert (set(bench.inventory.devices), bench.inventory.places) == (set(), {})


async def test_what_is_left_at_a_place_that_answers_no_more_is_abandoned_by_an_operator_alone() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    bench.saved[DeviceId("a")] = {"work_mode": 2.0}
    await bench.register(row("modbus", "a", **THERE))
    await bench.passed(200)
    assert bench.waiting() == {"a": "still without the settings it had before it was controlled"}
    await bench.inventory.abandon(DeviceId("a"), why="the battery is gone", by="ann")
    assert (bench.url(), bench.saved, bench.waiting()) == ("modbus://10.0.0.6", {}, {})
    with pytest.raises(InvalidInput, match="'a' does not leave its place"):
        await bench.inventory.abandon(DeviceId("a"), why="again", by="ann")


MOVES = [
    (row("modbus", **HERE), row("modbus", **THERE), "address"),
    (row("modbus", **HERE), row("modbus", address="modbus://10.0.0.5:503"), "address"),
    (row("modbus", **HERE), row("modbus", **HERE, units={"main": 2}), "units"),
    (row("modbus", **HERE, parameters={"serial": "SM1"}), row("modbus", **HERE, parameters={"serial": "SM2"}),
     "parameters"),
    (row("modbus", **HERE, parameters={"serial": "SM1"}), row("modbus", **HERE), "parameters"),
    (row("mqtt"), row("mqtt", parameters={"portal": "other"}), "parameters"),
    (row("mqtt"), row("mqtt", address="mqtt://10.0.0.9:1884"), "address"),
    (row("http"), row("http", address="https://10.0.0.9"), "address"),
    (row("modbus", **HERE), row("modbus", **HERE) | {"profile": "other"}, "profile"),
    (row("modbus", **HERE), row("p"), "profile"),
    (row("p"), row("modbus", **HERE), "profile"),
    (row("p"), row("p") | {"profile": "q"}, "profile"),
]  # fmt: skip
STAYS = [
    (row("modbus", **HERE), row("modbus", **HERE, units={"main": 1}, tags=["x"])),
    (row("modbus", **HERE), row("modbus", address="MODBUS://10.0.0.5:502", tags=["x"])),
    (row("modbus", **HERE), row("modbus", **HERE, units={"meter": 9})),
    (row("modbus", **HERE), row("modbus", **HERE, parameters={"serial": "SM1"})),
    (row("http"), row("http", secret="env:ROTATED", username="new", parameters={"fingerprint": "ab" * 32})),
    (row("modbus", **HERE), row("modbus", **HERE, site="moved", feeder="f", capacity_wh=9_000, discharge_w_max=4_000)),
    (row("modbus", **HERE), row("modbus", **HERE, reserve_pct=30, export_allowed=True, experimental=True)),
    (row("p"), row("p", tags=["x"], grid_charge_allowed=True)),
]


@pytest.mark.parametrize(("before", "after", "column"), MOVES)
@pytest.mark.parametrize("authority", [Authority.CONTROLLED, Authority.RELEASING])
async def test_move_of_a_device_that_is_held_names_the_column_and_waits(
    before: dict[str, object], after: dict[str, object], column: str, authority: Authority
) -> None:
    bench = ImportBench([before])
    known = bench.inventory.devices[DeviceId("a")]
    bench.world.fleet.control.authority[0] = authority
    done = await bench.register(after)
    assert f" {column} from " in done.notes[0].note
    assert (done.registered, done.departing, done.bad) == (0, 1, [])
    assert bench.inventory.devices[DeviceId("a")] == known
    bench.world.fleet.control.authority[0] = Authority.DEVICE
    assert await bench.inventory.depart() == ["a"]
    found, wanted = bench.inventory.devices[DeviceId("a")], made(**after)
    assert (found.profile, found.connection) == (wanted.profile, wanted.connection)


@pytest.mark.parametrize(("before", "after", "column"), MOVES)
@pytest.mark.parametrize("authority", [Authority.DEVICE, Authority.OWNER])
async def test_move_of_a_device_that_is_not_held_is_taken(
    before: dict[str, object], after: dict[str, object], column: str, authority: Authority
) -> None:
    bench = ImportBench([before])
    bench.world.fleet.control.authority[0] = authority
    done = await bench.register(after)
    assert (done.bad, done.registered) == ([], 1)
    found, wanted = bench.inventory.devices[DeviceId("a")], made(**after)
    assert (found.profile, found.connection) == (wanted.profile, wanted.connection)
    assert bench.world.fleet.moving == set()


@pytest.mark.parametrize(("before", "after"), STAYS)
async def test_change_of_what_is_neither_place_nor_product_is_taken_under_control(
    before: dict[str, object], after: dict[str, object]
) -> None:
    bench = ImportBench([before])
    await bench.controlled()
    done = await bench.register(after)
    assert (done.bad, done.registered) == ([], 1)
    await bench.world.go(3)
    assert bench.world.authority() == ["CONTROLLED"]


async def test_move_of_a_device_with_saved_settings_waits_until_they_are_restored() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    bench.saved[DeviceId("a")] = {"work_mode": 2.0}
    done = await bench.register(row("modbus", "a", **THERE))
    assert "a: is still without the settings it had before" in done.notes[0].note
    assert (await bench.inventory.depart(), bench.url()) == ([], "modbus://10.0.0.5")
    bench.saved.clear()
    assert (await bench.inventory.depart(), bench.url()) == (["a"], "modbus://10.0.0.6")


@pytest.mark.parametrize("after", [row("modbus", **HERE) | {"profile": "other"}, row("p")])
async def test_change_of_product_waits_until_the_settings_of_the_product_before_are_restored(
    after: dict[str, object],
) -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    bench.saved[DeviceId("a")] = {"work_mode": 2.0}
    done = await bench.register(after)
    assert "a: is still without the settings it had before" in done.notes[0].note
    assert bench.inventory.devices[DeviceId("a")].profile == row("modbus", **HERE)["profile"]


async def test_move_after_a_restart_waits_until_the_device_has_said_that_it_is_free() -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7")])
    await bench.controlled(s=600)
    bench.world.restart(away_s=1)
    bench.world.homes.silent = {0}
    bench.begin(list(bench.journal.load().controlled))
    bench.world.homes.revert(1)
    await bench.world.dispatcher.cancel("e")
    done = await bench.register(row("modbus", "a", **THERE), row("modbus", "b", address="modbus://10.0.0.8"))
    assert (done.departing, bench.waiting()) == (2, {"a": "under control", "b": "under control"})
    await bench.passed(2)
    assert set(bench.waiting()) == {"a"}
    assert (bench.url("a"), bench.url("b")) == ("modbus://10.0.0.5", "modbus://10.0.0.8")


async def test_move_of_an_orphan_waits_where_the_journal_has_a_release_plan() -> None:
    journal = MemoryJournal()
    lost = [home(name, profile="gone", connection=DeviceConnection(url="modbus://10.0.0.5")) for name in ("a", "b")]
    inventory = DeviceRegistry(clock=ManualClock(), fleet=World([]).fleet, journal=journal, codecs=CODECS)
    assert inventory.load(lost, [DeviceId("a")]) == ["a", "b"]
    text = "\n".join(json.dumps(row("modbus", name, address=f"modbus://{name}")) for name in ("a", "b"))
    done = await inventory.register_rows(parse_rows(text, form="jsonl", profiles=CODECS))
    assert (done.registered, done.departing, done.bad) == (1, 1, [])
    assert done.notes[0].note.startswith(
        "a: is under control since before the gateway started; it changes profile from 'gone' to"
    )
    assert (await inventory.depart(), inventory.waits_for(DeviceId("a"))) == (
        [], "under control since before the gateway started"
    )  # fmt: skip
    assert set(inventory.devices.orphans) == {"a"}


async def test_move_of_a_free_device_leaves_nothing_of_it_in_the_journal() -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7")])
    # The journal could not be told that they are free: it is owed that, or has lost it.
    plan = ControlTaken(devices=(DeviceId("a"), DeviceId("b")), event=EventId("e"))
    settings = [PriorSaved(device=DeviceId(name), settings={"work_mode": 2.0}) for name in ("a", "b")]
    await bench.journal.commit([plan, *settings])
    await bench.register(row("modbus", "a", **THERE), row("modbus", "b", address="modbus://10.0.0.7", tags=["x"]))
    left = bench.journal.load()
    assert (set(left.controlled), set(left.prior)) == ({"b"}, {"b"})


# -- who stays keeps others out ------------------------------------------------------------------------------


async def test_rows_that_counted_on_the_place_of_one_that_waits_wait_too() -> None:
    bench = ImportBench([row("modbus", name, address=f"modbus://10.0.0.{i}") for i, name in enumerate("abcd", start=1)])
    bench.world.fleet.control.authority[3] = Authority.CONTROLLED
    shifted = [row("modbus", name, address=f"modbus://10.0.0.{i}") for i, name in enumerate("abcd", start=2)]
    done = await bench.register(*shifted, row("p", "x"))
    assert (done.departing, done.bad, done.registered) == (4, [], 1)
    assert (await bench.inventory.depart(), set(bench.waiting())) == ([], set("abcd"))
    assert "'c' and 'd' are one and the same" in bench.waiting()["c"]
    assert {holder: place[0] for place, holder in bench.inventory.places.items()} == {
        name: f"10.0.0.{i}:502" for i, name in enumerate("abcd", start=1)
    }
    bench.world.fleet.control.authority[3] = Authority.DEVICE
    assert sorted(await bench.inventory.depart()) == [*"abcd"]
    assert bench.url("a") == "modbus://10.0.0.2"


async def test_new_device_at_a_place_that_another_one_still_leaves_is_refused() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    bench.world.fleet.control.authority[0] = Authority.CONTROLLED
    done = await bench.register(row("modbus", "a", **THERE), row("modbus", "x", **HERE))
    assert (done.departing, [bad.line for bad in done.bad]) == (1, [2])
    assert "'x' and 'a' are one and the same" in done.bad[0].problem


def place(number: int) -> Place:
    return str(number), 0, ()


@given(
    at=st.permutations(range(6)),
    to=st.lists(st.integers(0, 8) | st.none(), min_size=8, max_size=8),
    asked=st.sets(st.integers(0, 7)),
    stuck=st.sets(st.integers(0, 7)),
)
def test_who_goes_where_gives_no_place_twice_and_none_away_that_is_kept(
    at: list[int], to: list[int | None], asked: set[int], stuck: set[int]
) -> None:
    """Devices 0 to 5 are registered at `at`, 6 and 7 are new; those `asked` want to go `to`, those `stuck` may not."""
    before = {place(number): DeviceId(str(i)) for i, number in enumerate(at)}
    wanted = {DeviceId(str(i)): None if (n := to[i]) is None else place(n) for i in sorted(asked)}
    problems = {DeviceId(str(i)): RowFault(column="address", problem="tied") for i in stuck & asked}
    after = who_goes_where(wanted, before, problems)
    at_place = {device: where for where, device in after.items()}
    assert len(at_place) == len(after)
    for where, device in before.items():
        moved = device in wanted and device not in problems
        assert at_place.get(device) == (wanted[device] if moved else where)
    for device, goal in wanted.items():
        if device not in problems:
            assert at_place.get(device) == goal
    # Nobody is refused for nothing: whoever is has somebody at the place it wants, or wants it as well.
    rivals = [(d, w) for d, w in wanted.items() if w is not None]
    for device in problems.keys() - {DeviceId(str(i)) for i in stuck}:
        goal = wanted[device]
        assert goal in before or sum(w == goal for _, w in rivals) > 1


# -- what is known of the one before -------------------------------------------------------------------------


async def test_device_that_moved_is_not_taken_before_it_has_been_heard_where_it_is_now() -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7")])
    await bench.world.go(2)
    bench.world.homes.silent = {0}
    await bench.register(row("modbus", "a", **THERE), row("modbus", "b", address="modbus://10.0.0.7", tags=["x"]))
    await bench.world.submit(s=600, target_w=2_000)
    await bench.world.go(5)
    assert bench.world.authority() == ["DEVICE", "CONTROLLED"]
    bench.world.homes.silent = set()
    await bench.world.go(5)
    assert bench.world.authority() == ["CONTROLLED", "CONTROLLED"]


@pytest.mark.parametrize("heard_at_once", [False, True])
async def test_reserve_that_another_battery_holds_is_no_choice_of_the_owner(heard_at_once: bool) -> None:
    bench = ImportBench([row("modbus", "a", **HERE, reserve_pct=30)])
    bench.world.homes.reserve_pct[:] = 30.0
    await bench.world.go(2)
    chosen = bench.journal.of(ReserveChanged)
    await bench.register(row("modbus", "a", **THERE, reserve_pct=30))
    bench.world.homes.reserve_pct[:] = 10.0
    if not heard_at_once:
        await bench.world.control.tick()
    await bench.world.go(3)
    plate = bench.world.fleet.nameplate
    assert plate.owner_reserve_pct[0] == 30.0
    assert bench.journal.of(ReserveChanged) == chosen
    # It is brought up to what the owner wants kept before it is controlled, as the one before was.
    await bench.world.submit(s=600, target_w=2_000)
    await bench.world.go(5)
    assert bench.world.ops()[:2] == [CommandOp.RESERVE, CommandOp.SETPOINT]
    assert bench.world.homes.reserve_pct[0] == 30.0
    # What it says from then on is the owner's.
    bench.world.homes.reserve_pct[:] = 40.0
    await bench.world.go(3)
    assert plate.owner_reserve_pct[0] == 40.0


async def test_reserve_written_to_the_battery_of_before_is_written_to_the_next_one_too() -> None:
    bench = ImportBench([row("modbus", "a", **HERE, reserve_pct=30)])
    bench.world.homes.reserve_pct[:] = 10.0
    await bench.controlled()
    await bench.released()
    assert bench.world.ops().count(CommandOp.RESERVE) == 1
    await bench.register(row("modbus", "a", **THERE, reserve_pct=30))
    bench.world.homes.reserve_pct[:] = 10.0
    await bench.world.submit("f", s=600, target_w=2_000)
    await bench.world.go(5)
    assert bench.world.ops().count(CommandOp.RESERVE) == 2


async def test_change_that_is_no_move_forgets_nothing() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    await bench.world.go(2)
    seen = bench.world.fleet.live.seen_mono_ms[0]
    await bench.register(row("modbus", "a", **HERE, tags=["x"]))
    assert bench.world.fleet.live.seen_mono_ms[0] == seen


# -- what a tick and an import do to each other --------------------------------------------------------------


async def test_device_is_not_taken_while_an_import_that_moves_it_waits_for_the_disk() -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7")])
    await bench.world.go(2)
    bench.journal.hangs = (PriorRestored,)
    tagged = row("modbus", "b", address="modbus://10.0.0.7", tags=["x"])
    async with asyncio.TaskGroup() as group:
        importing = group.create_task(bench.register(row("modbus", "a", **THERE), tagged))
        await turns()
        await bench.world.submit(s=600, target_w=2_000)
        await bench.world.go(5)
        assert bench.world.authority() == ["DEVICE", "CONTROLLED"]
        assert bench.world.ops(0) == []
        assert bench.url() == "modbus://10.0.0.5"
        bench.journal.go.set()
    assert (importing.result().bad, bench.url()) == ([], "modbus://10.0.0.6")
    assert bench.world.fleet.moving == set()
    await bench.world.go(5)
    assert bench.world.authority() == ["CONTROLLED", "CONTROLLED"]


async def test_device_that_is_taken_while_a_large_import_is_looked_through_stays_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7")])
    await bench.world.go(2)

    async def meanwhile(work: Callable[..., object], *args: object) -> object:
        found = work(*args)
        bench.world.fleet.control.authority[0] = Authority.CONTROLLED
        return found

    monkeypatch.setattr(registry, "CHANGES_SLICE", 1)
    monkeypatch.setattr(asyncio, "to_thread", meanwhile)
    done = await bench.register(row("modbus", "a", **THERE), row("modbus", "b", address="modbus://10.0.0.8"))
    assert ["under control" in note.note for note in done.notes] == [True]
    assert [*bench.inventory.places] == [("10.0.0.5:502", 1, ()), ("10.0.0.8:502", 1, ())]


async def test_device_is_dispatched_where_it_was_after_an_import_that_the_disk_refused() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    await bench.world.go(2)
    bench.journal.failing = True
    with pytest.raises(StorageError):
        await bench.register(row("modbus", "a", **THERE))
    bench.journal.failing = False
    assert bench.url() == "modbus://10.0.0.5"
    assert list(bench.inventory.places) == [("10.0.0.5:502", 1, ())]
    await bench.controlled()


@pytest.mark.parametrize("low_first", [False, True])
async def test_import_waits_for_a_device_that_a_tick_is_about_to_take(low_first: bool) -> None:
    bench = ImportBench([row("modbus", "a", **HERE), row("modbus", "b", address="modbus://10.0.0.7")])
    if low_first:
        # The devices hold less than their owners want kept: that is raised first, and it is this write that hangs.
        bench.world.homes.reserve_pct[:] = 10.0
    await bench.world.go(2)
    await bench.world.submit(s=600, target_w=2_000)
    hung = asyncio.Event()
    write = bench.world.homes.write

    async def slow(batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        await hung.wait()
        return await write(batch, deadline_mono_ms=deadline_mono_ms)

    bench.world.homes.write = slow  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(bench.world.control.tick())
        await turns()
        assert not ticking.done()
        # what a tick gives power counts as under control from then on; where a reserve is raised first, it will be
        assert bench.world.authority() == (["DEVICE"] if low_first else ["CONTROLLED"]) * 2
        done = await bench.register(row("modbus", "a", **THERE), row("modbus", "b", address="modbus://10.0.0.7",
                                                                 tags=["x"]))  # fmt: skip
        hung.set()
    assert (done.departing, done.registered) == (1, 1)
    assert f"a: is {'coming under control' if low_first else 'under control'}" in done.notes[0].note
    assert bench.url() == "modbus://10.0.0.5"
    if low_first:
        assert bench.world.ops() == [CommandOp.RESERVE, CommandOp.RESERVE]
        assert await bench.inventory.depart() == ["a"]
    else:
        assert bench.world.authority() == ["CONTROLLED", "CONTROLLED"]


async def test_imports_at_once_are_decided_one_after_the_other() -> None:
    bench = ImportBench([row("modbus", "a", **HERE)])
    bench.journal.hangs = (PriorRestored,)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(bench.register(row("modbus", "a", **THERE)))
        await turns()
        second = group.create_task(
            bench.register(row("modbus", "a", address="modbus://10.0.0.9"), row("modbus", "b", **HERE))
        )
        await turns()
        bench.journal.go.set()
    assert (first.result().bad, second.result().bad) == ([], [])
    known = {device.id: device for device in bench.journal.load().devices}
    assert known == dict(bench.inventory.devices)
    assert (bench.url("a"), bench.url("b")) == ("modbus://10.0.0.9", "modbus://10.0.0.5")


async def test_release_of_what_was_taken_goes_on_beside_imports() -> None:
    """The release plan in the journal of a device that only changed a tag is the release plan it had."""
    bench = ImportBench([row("modbus", "a", **HERE)])
    await bench.controlled()
    await bench.register(row("modbus", "a", **HERE, tags=["x"]))
    assert set(bench.journal.load().controlled) == {"a"}
    await bench.released()
    assert bench.journal.load().controlled == {}
    assert [change.reason for change in bench.journal.kept if isinstance(change, ControlEnded)] == ["released"]


# -- the same battery at another address -----------------------------------------------------------------------

SERIAL = {"parameters": {"serial": "SM123"}}


async def test_battery_that_answers_at_its_old_address_no_more_takes_its_control_and_settings_along() -> None:
    """Its serial number says that it is the same: nothing is left behind where it was."""
    bench = ImportBench([row("modbus", "a", **HERE, **SERIAL)])
    await bench.controlled(s=600)
    bench.saved[DeviceId("a")] = {"work_mode": 2.0}
    bench.world.homes.offline = {0}
    await bench.world.go(2)
    before = len(bench.journal.kept)
    done = await bench.register(row("modbus", "a", **THERE, **SERIAL))
    assert (done.registered, done.departing, bench.url()) == (1, 0, "modbus://10.0.0.6")
    assert bench.world.authority() == ["CONTROLLED"]
    assert bench.saved == {DeviceId("a"): {"work_mode": 2.0}}
    assert not [c for c in bench.journal.kept[before:] if isinstance(c, ControlEnded | PriorRestored)]
    assert list(bench.journal.load().controlled) == ["a"]
    bench.world.homes.offline = set()
    await bench.world.go(5)
    await bench.released()


async def test_battery_that_is_lost_while_it_waits_goes_along_then() -> None:
    bench = ImportBench([row("modbus", "a", **HERE, **SERIAL)])
    bench.saved[DeviceId("a")] = {"work_mode": 2.0}
    bench.world.fleet.live.online[0] = 1
    assert (await bench.register(row("modbus", "a", **THERE, **SERIAL))).departing == 1
    assert (await bench.inventory.depart(), bench.url()) == ([], "modbus://10.0.0.5")
    bench.world.fleet.live.online[0] = 0
    assert (await bench.inventory.depart(), bench.url()) == (["a"], "modbus://10.0.0.6")
    assert bench.saved == {DeviceId("a"): {"work_mode": 2.0}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        (SERIAL, {}),
        (SERIAL, {"parameters": {"serial": "SM124"}}),
        (SERIAL, SERIAL | {"profile": "other"}),
    ],
)
async def test_battery_that_may_be_another_one_takes_nothing_along(
    before: dict[str, object], after: dict[str, object]
) -> None:
    bench = ImportBench([row("modbus", "a", **HERE, **before)])
    bench.saved[DeviceId("a")] = {"work_mode": 2.0}
    bench.world.fleet.live.online[0] = 0
    done = await bench.register(row("modbus", "a", **THERE) | after)
    assert (done.departing, await bench.inventory.depart(), bench.url()) == (1, [], "modbus://10.0.0.5")


@pytest.mark.parametrize(
    ("before", "after", "another"),
    [
        (row("modbus", **HERE), row("modbus", **THERE), True),
        (row("modbus", **HERE), row("modbus", **HERE, **SERIAL) | {"profile": "other"}, True),
        (row("modbus", **HERE, **SERIAL), row("modbus", **THERE, **SERIAL), False),
        (row("modbus", **HERE), row("modbus", **HERE, tags=["new"]), False),
        (row("p"), row("p") | {"profile": "q"}, False),
        (row("p"), row("modbus", **HERE), True),
    ],
)
async def test_energy_of_a_device_that_moves_begins_anew_where_another_battery_answers(
    before: dict[str, object], after: dict[str, object], another: bool
) -> None:
    bench = ImportBench([before])
    await bench.register(after)
    assert bench.inventory.devices[DeviceId("a")].profile == after["profile"]
    assert bench.world.fleet.renewed == ({0} if another else set())
