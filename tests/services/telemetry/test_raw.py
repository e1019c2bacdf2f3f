"""Nothing is acknowledged that is not kept: what nobody can take yet is stored raw, told, and counted later."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.journal.changes import AuditDoor, RawDiscarded
from gateway.domain.readings import RawMessage
from gateway.domain.types import DeviceId
from gateway.profiles.compile import Codec
from gateway.services.telemetry import raw as raw_messages
from gateway.services.telemetry import raw_replay
from gateway.storage.raw_messages import FEW_TOPICS, StoredRaw
from tests.builders.energy_batches import T0
from tests.builders.fakes import MemoryJournal, home, message_product, product
from tests.scenes.raw_rig import Life, energy, life, topic
from tests.scenes.waiting import turns, until


def said(device: str, seqs: Sequence[int], *, from_s: float = 0.0) -> list[tuple[str, bytes]]:
    """A message every 10 s; the counter goes up by 5 Wh each time."""
    return [energy(device, seq, T0 + round(1000 * (from_s + 10 * seq)), 5.0 * seq) for seq in seqs]


async def hear(running: Life, *messages: tuple[str, bytes]) -> None:
    """Messages that come one by one, each 10 s after the one before, and are acknowledged."""
    for message in messages:
        running.clock.advance(s=10)
        running.send(message)
        await acknowledged(running)


async def acknowledged(running: Life) -> None:
    await until(lambda: len(running.telemetry.acknowledged) == running.packets, "everything is acknowledged")


async def counted(running: Life) -> None:
    await until(lambda: not running.raw.topics, "nothing is kept raw")


async def test_raw_of_a_device_that_is_not_registered_is_counted_in_its_intervals_once_it_is(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with life(tmp_path, MemoryJournal(), clock=clock) as running:
        await hear(running, *said("a", range(1, 13)))
        assert running.recorder.engine.totals.rows == 0
        assert running.raw.reason(topic("a")) == "its device is not registered"
        assert running.raw.topics[topic("a")].stored.messages == 12
        await running.registry.register([home("a")])
        await counted(running)
        await hear(running, *said("a", [13]))
        clock.advance(s=120)
        assert await running.intervals("a") == {0: 25.0, 60: 30.0, 120: 5.0}
        assert running.recorder.engine.totals.duplicates == 0
        assert running.raw.topics == {}


async def test_raw_is_acknowledged_no_sooner_than_it_is_stored(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        running.disk.full = True
        running.send(*said("a", [1]))
        await turns(50)
        assert running.telemetry.acknowledged == []
        await until(lambda: running.raw.reasons() == ["raw messages: raw.sqlite: disk full"])
        running.disk.full = False
        await acknowledged(running)
        assert running.raw.reasons() == []
        assert [one.message.payload for one in await running.disk.newest(topic("a"), 9)] == [said("a", [1])[0][1]]


async def test_raw_goes_beside_what_can_be_counted_of_the_same_read(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        await running.registry.register([home("b")])
        running.send(*said("a", [1]), *said("b", [1]), (topic("b"), b"{"), *said("b", [2]))
        await acknowledged(running)
        assert running.recorder.engine.totals.new == 2
        assert {name: kept.stored.messages for name, kept in running.raw.topics.items()} == {
            topic("a"): 1,
            topic("b"): 1,
        }


async def test_raw_survives_a_kill_and_is_counted_once_whenever_that_is(tmp_path: Path) -> None:
    journal, clock = MemoryJournal(), ManualClock(utc_ms=T0)
    async with life(tmp_path, journal, clock=clock) as running:
        await hear(running, *said("a", range(1, 7)))
    async with life(tmp_path, journal, clock=clock, replaying=False) as running:
        await running.registry.register([home("a")])
        # counted, and killed before they are forgotten
        with patch.object(running.raw, "finish", side_effect=StorageError("killed")), pytest.raises(StorageError):
            await running.replay.replay()
        assert running.recorder.engine.totals.new == 6
    async with life(tmp_path, journal, clock=clock) as running:
        await counted(running)
        await hear(running, *said("a", [7]))
        clock.advance(s=120)
        assert await running.intervals("a") == {0: 25.0, 60: 5.0}


async def test_raw_what_comes_while_earlier_messages_are_counted_waits_behind_them(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with life(tmp_path, MemoryJournal(), clock=clock, replaying=False) as running:
        await hear(running, *said("a", range(1, 7)))
        await running.registry.register([home("a")])
        await hear(running, *said("a", [7, 8]))
        assert running.recorder.engine.totals.rows == 0
        await running.replay.replay()
        await hear(running, *said("a", [9]))
        clock.advance(s=200)
        assert await running.intervals("a") == {0: 25.0, 60: 15.0}
        assert running.recorder.engine.totals.late_rows == 0


async def test_raw_of_a_device_without_its_profile_is_counted_when_the_profile_is_back(tmp_path: Path) -> None:
    journal, clock = MemoryJournal(), ManualClock(utc_ms=T0)
    async with life(tmp_path, journal, clock=clock) as running:
        await running.registry.register([home("a")])
        await hear(running, *said("a", [1, 2]))
    # the broker goes on sending what was subscribed before
    async with life(tmp_path, journal, clock=clock, codecs={}) as running:
        await hear(running, *said("a", [3, 4]))
        assert running.raw.reason(topic("a")) == "no installed profile has this topic"
    other = message_product("q")
    async with life(tmp_path, journal, clock=clock, codecs={"q": other}) as running:
        await hear(running, *said("a", [5]))
        assert running.raw.reason(topic("a")) == "the profile of its device is not installed"
        assert running.raw.warnings() == [
            "telemetry: settlement messages on 1 topics are kept raw, first of a: "
            "the profile of its device is not installed"
        ]
    async with life(tmp_path, journal, clock=clock) as running:
        await counted(running)
        await hear(running, *said("a", [6]))
        clock.advance(s=300)
        assert await running.intervals("a") == {0: 25.0}


async def test_raw_of_a_device_that_speaks_as_another_product_is_counted_once_it_is_registered_as_it(
    tmp_path: Path,
) -> None:
    codecs = two_products()
    clock = ManualClock(utc_ms=T0)
    async with life(tmp_path, MemoryJournal(), clock=clock, codecs=codecs) as running:
        await running.registry.register([home("a", profile="q")])
        await hear(running, *said("a", range(1, 7)))
        assert running.raw.reason(topic("a")) == "it speaks as p, its device is registered as q"
        await running.registry.register([home("a", profile="p")])
        await counted(running)
        clock.advance(s=300)
        assert await running.intervals("a") == {0: 25.0}


def two_products() -> dict[str, Codec]:
    """Products `p` and `q`, each with topics of its own."""
    document = message_product("q").document
    assert document.messages is not None
    moved = {
        kind: message.model_copy(update={"topic": message.topic.replace("gateway/v1/", "gateway/v2/")})
        for kind, message in document.messages.items()
    }
    return {"p": message_product("p"), "q": product(document.model_copy(update={"messages": moved}))}


UNREADABLE = [b"{", b"", b"\xff\xfe", b"[]", b'{"id": "a"}', b'{"id": "b", "boot": 1, "seq": 1, "t": 1}']


@pytest.mark.parametrize("payload", UNREADABLE)
async def test_raw_that_cannot_be_read_is_kept_with_its_problem_and_keeps_nothing_up(
    tmp_path: Path, payload: bytes
) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        await running.registry.register([home("a")])
        running.send((topic("a"), payload), *said("a", [2]))
        await acknowledged(running)
        await until(lambda: running.recorder.engine.totals.new == 1)
        (kept,) = await running.disk.newest(topic("a"), 9)
        assert (kept.message.payload, bool(kept.message.problem)) == (payload, True)
        assert running.raw.reason(topic("a")) == "they cannot be read"
        running.send(*said("a", [3]))
        await until(lambda: running.recorder.engine.totals.new == 2)


@pytest.mark.parametrize("registered_first", [True, False])
async def test_message_with_half_a_character_keeps_no_other_message_up(tmp_path: Path, registered_first: bool) -> None:
    homes = [home("a"), home("b")]
    async with life(tmp_path, MemoryJournal()) as running:
        if registered_first:
            await running.registry.register(homes)
        name, payload = said("a", [1])[0]
        running.send((name, payload.replace(b'"boot":1', b'"boot":"\\ud800"')), *said("a", [2]), *said("b", [1]))
        await acknowledged(running)
        if not registered_first:
            await running.registry.register(homes)
        await until(lambda: running.recorder.engine.totals.new == 2)
        assert [(one.message.topic, one.message.problem) for one in await running.disk.newest(name, 9)] == [
            (name, "schema")
        ]


async def test_raw_that_cannot_be_read_is_counted_by_a_later_gateway_that_can(tmp_path: Path) -> None:
    document = message_product("p").document
    assert document.messages is not None
    message = document.messages["energy"]
    points = message.points | {"boot": message.points["boot"].model_copy(update={"key": "start"})}
    narrow = product(
        document.model_copy(
            update={"messages": document.messages | {"energy": message.model_copy(update={"points": points})}}
        )
    )
    journal, clock = MemoryJournal(), ManualClock(utc_ms=T0)
    async with life(tmp_path, journal, clock=clock, codecs={"p": narrow}) as running:
        await running.registry.register([home("a")])
        await hear(running, *said("a", range(1, 7)))
        assert running.raw.topics[topic("a")].stored.unreadable == 6
        assert running.link.stats.rejects["schema"] == 6
    async with life(tmp_path, journal, clock=clock) as running:
        await counted(running)
        clock.advance(s=300)
        assert await running.intervals("a") == {0: 25.0}


async def test_raw_whose_device_tells_no_usable_time_goes_by_when_it_was_received(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with life(tmp_path, MemoryJournal(), clock=clock) as running:
        await hear(running, *(energy("a", seq, 86_400_000, 5.0 * seq) for seq in range(1, 13)))
        clock.advance(s=7_200)
        await running.registry.register([home("a")])
        await counted(running)
        found = await running.intervals("a")
        assert sum(found.values()) == pytest.approx(55.0)
        assert set(found) <= {0, 60, 120}


async def test_raw_beyond_the_room_of_a_topic_is_discarded_and_told_and_the_energy_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_messages, "TOPIC_BYTES_MAX", 1_000)
    clock = ManualClock(utc_ms=T0)
    async with life(tmp_path, MemoryJournal(), clock=clock) as running:
        await hear(running, *said("a", range(1, 13)))
        kept = running.raw.topics[topic("a")]
        assert (kept.stored.messages + kept.discarded, kept.stored.bytes <= 1_000) == (12, True)
        assert kept.discarded == running.raw.discarded["room"] > 0
        assert "no room for raw messages on 1 topics" in running.raw.warnings()[1]
        await running.registry.register([home("a")])
        await counted(running)
        await hear(running, *said("a", [13]))
        clock.advance(s=7_200)
        # the silence is shared by time, and what that changed is recorded a grace later
        await running.intervals("a")
        clock.advance(s=60)
        assert sum((await running.intervals("a")).values()) == pytest.approx(60.0)


async def test_raw_of_strangers_leaves_room_for_registered_devices(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal(), most_bytes=20_000) as running:
        await running.registry.register([home("a")])
        for number in range(200):
            running.send(*said(f"stranger-{number}", [1]))
        running.send((topic("a"), b"{"))
        await acknowledged(running)
        assert running.raw.discarded["room"] > 0
        assert sum(kept.stored.bytes for kept in running.raw.topics.values()) <= 10_000 + 200
        assert running.raw.topics[topic("a")].stored.messages == 1


async def test_raw_topics_of_strangers_leave_room_for_registered_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_messages, "TOPICS_MAX", 20)
    async with life(tmp_path, MemoryJournal()) as running:
        await running.registry.register([home("a")])
        running.send(*(message for number in range(40) for message in said(f"stranger-{number}", [1])))
        running.send((topic("a"), b"{"))
        await acknowledged(running)
        assert len(running.raw.topics) == 11
        assert running.raw.topics[topic("a")].stored.messages == 1


async def test_raw_no_room_is_told_no_more_once_there_is_room(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal(), most_bytes=2_000) as running:
        running.send(*said("a", [1, 2]), *said("b", [1, 2, 3]), *said("c", [1]))
        await acknowledged(running)
        assert f"no room for raw messages on 2 topics, first {topic('b')}" in running.raw.warnings()[1]
        await running.registry.register([home("a")])
        await counted_of(running, "a")
        assert len(running.raw.warnings()) == 1
        running.send(*said("c", [2]))
        await acknowledged(running)
        assert running.raw.topics[topic("c")].stored.messages == 1


async def test_raw_of_a_device_that_comes_back_while_it_is_passed_over_is_counted_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_replay, "PAGE", 2)
    clock = ManualClock(utc_ms=T0)
    async with life(tmp_path, MemoryJournal(), clock=clock, replaying=False) as running:
        await hear(running, *said("a", range(1, 7)))
        await running.registry.register([home("a")])
        waiting, pages = running.disk.waiting, 0

        async def meanwhile(topics: Sequence[str], after: int, limit: int) -> list[StoredRaw]:
            nonlocal pages
            found = await waiting(topics, after, limit)
            pages += 1
            await (running.registry.remove([DeviceId("a")]) if pages == 1 else running.registry.register([home("a")]))
            return found

        with patch.object(running.disk, "waiting", meanwhile):
            await running.replay.replay()
        await running.replay.replay()
        clock.advance(s=200)
        assert await running.intervals("a") == {0: 25.0}
        assert running.recorder.engine.totals.late_rows == 0


async def test_raw_of_many_devices_is_counted_in_their_order(tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(2 * FEW_TOPICS)]
    clock = ManualClock(utc_ms=T0)
    async with life(tmp_path, MemoryJournal(), clock=clock) as running:
        for seq in range(1, 4):
            clock.advance(s=10)
            running.send(*(message for name in names for message in said(name, [seq])), *said("nobody", [seq]))
        await acknowledged(running)
        await running.registry.register([home(name) for name in names])
        await until(lambda: set(running.raw.topics) == {topic("nobody")})
        clock.advance(s=300)
        assert [await running.intervals(name) for name in names[:3]] == [{0: 10.0}] * 3
        assert running.recorder.engine.totals.new == 3 * len(names)


async def test_raw_that_is_discarded_is_gone_and_the_journal_says_who_did_and_why(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with life(tmp_path, journal) as running:
        running.send(*said("a", [1, 2]), *said("b", [1]))
        await acknowledged(running)
        with pytest.raises(InvalidInput, match="'c': nothing is kept of it"):
            await running.raw.discard("c", why="x", by="fay")
        assert await running.raw.discard("a", why="test bench", by="fay") == 2
        assert set(running.raw.topics) == {topic("b")}
        assert journal.kept[-1] == RawDiscarded(names=(topic("a"),), messages=2)
        assert [(change.by, change.reason, change.door) for change in journal.kept[-1:]] == [  # type: ignore[union-attr]
            ("fay", "test bench", AuditDoor.REST)
        ]
        await running.registry.register([home("a")])
        running.send(*said("a", [3]))
        await until(lambda: running.recorder.engine.totals.new == 1)


async def test_raw_that_was_counted_before_its_discard_came_to_it_is_not_told_as_discarded(tmp_path: Path) -> None:
    journal = MemoryJournal()
    async with life(tmp_path, journal, replaying=False) as running:
        running.send(*said("a", [1, 2]))
        await acknowledged(running)
        async with running.raw.still:
            discarding = asyncio.create_task(running.raw.discard("a", why="test bench", by="fay"))
            await turns(5)
            first, _ = await running.disk.waiting([topic("a")], 0, 9)
            await running.raw.finish([first], [])
        assert (await discarding, running.raw.discarded["operator"]) == (1, 1)
        assert journal.kept[-1] == RawDiscarded(names=(topic("a"),), messages=1)


async def test_raw_of_a_device_that_was_removed_waits_until_it_is_back(tmp_path: Path) -> None:
    clock = ManualClock(utc_ms=T0)
    async with life(tmp_path, MemoryJournal(), clock=clock) as running:
        await running.registry.register([home("a")])
        await hear(running, *said("a", [1, 2]))
        await until(lambda: running.recorder.engine.totals.new == 2)
        await running.registry.remove([DeviceId("a")])
        await hear(running, *said("a", [2, 3, 4]))
        await running.registry.register([home("a")])
        await counted(running)
        clock.advance(s=300)
        assert await running.intervals("a") == {0: 15.0}
        assert running.recorder.engine.totals.duplicates == 1


async def test_raw_file_that_is_damaged_is_set_aside_and_told(tmp_path: Path) -> None:
    (tmp_path / "raw.sqlite").write_bytes(b"no database at all, " * 100)
    async with life(tmp_path, MemoryJournal()) as running:
        assert running.disk.warnings() == [
            "telemetry: raw messages could not be read; the file is kept as raw.sqlite.1.corrupt"
        ]
        running.send(*said("a", [1]))
        await acknowledged(running)
    assert (tmp_path / "raw.sqlite.1.corrupt").exists()
    with closing(sqlite3.connect(tmp_path / "raw.sqlite")) as db:
        assert db.execute("select count(*) from raw").fetchone() == (1,)


async def test_raw_file_whose_damage_shows_later_is_set_aside_and_holds_nobody_up(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        await running.registry.register([home("b")])
        for seq in range(1, 4):
            running.send(*(energy(f"a{number}", seq, T0, 1.0, pad="x" * 400) for number in range(100)))
        await acknowledged(running)
    file = tmp_path / "raw.sqlite"
    content = bytearray(file.read_bytes())
    for page in range(8, len(content) // 4096):
        content[4096 * page : 4096 * page + 64] = b"\xff" * 64
    file.write_bytes(content)
    async with life(tmp_path, MemoryJournal(), loaded=False) as running:
        await running.registry.register([home("b"), home("a1")])
        running.send(*said("c", [1]), *said("b", [1]))
        await acknowledged(running)
        running.send(*(message for number in range(100) for message in said(f"a{number}", [9])))
        await acknowledged(running)
        await until(lambda: topic("a1") not in running.raw.topics)
        assert running.raw.reasons() == []
        assert "the file is kept as raw.sqlite.1.corrupt" in running.disk.warnings()[0]
        stored = await running.disk.totals()
        assert {name: kept.stored for name, kept in running.raw.topics.items()} == stored


@pytest.mark.parametrize(
    "schema",
    ["create table raw (id integer primary key, topic text, body blob)", "create table raw (number integer)"],
)
async def test_raw_file_of_another_version_is_set_aside_and_holds_nobody_up(tmp_path: Path, schema: str) -> None:
    with closing(sqlite3.connect(tmp_path / "raw.sqlite")) as db:
        db.execute(schema)
    db.close()
    async with life(tmp_path, MemoryJournal()) as running:
        running.send(*said("a", [1]))
        await acknowledged(running)
    assert (tmp_path / "raw.sqlite.1.corrupt").exists()


async def test_raw_what_a_kept_file_loses_room_for_goes_back_to_the_disk(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        running.send(*(energy("a", seq, T0, 1.0, pad="x" * 2_000) for seq in range(1, 1_000)))
        await acknowledged(running)
        await running.raw.discard(topic("a"), why="test bench", by="fay")
    assert (tmp_path / "raw.sqlite").stat().st_size < 100_000


async def test_raw_telemetry_stays_paused_while_the_disk_is_full_and_earlier_messages_are_counted(
    tmp_path: Path,
) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        running.send(*said("a", [1, 2, 3]))
        await acknowledged(running)
        running.disk.full = True
        running.send(*said("b", [1]))
        await until(lambda: running.telemetry.paused)
        await running.registry.register([home("a")])
        await counted_of(running, "a")
        assert running.telemetry.paused
        running.disk.full = False
        await acknowledged(running)
        await until(lambda: not running.telemetry.paused)


async def counted_of(running: Life, device: str) -> None:
    await until(lambda: topic(device) not in running.raw.topics, "nothing of it is kept raw")


async def test_raw_that_was_stored_while_ingest_was_stopped_is_told_as_it_is(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        (message,) = said("a", [1])
        raw = RawMessage(topic=message[0], payload=message[1], problem="")
        running.raw.observe([raw])
        keeping = asyncio.create_task(running.raw.keep(running.raw.coming()))
        await turns(1)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        running.raw.forget([raw])
        # sent again
        running.send(message)
        await acknowledged(running)
        assert running.raw.topics[topic("a")].stored == (await running.disk.totals())[topic("a")]
        await running.registry.register([home("a")])
        await counted(running)
        assert running.recorder.engine.totals.new == 1


async def test_raw_is_counted_once_where_two_look_at_the_file_at_the_same_time(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        running.send(*said("a", [1, 2]))
        await acknowledged(running)
    async with life(tmp_path, MemoryJournal(), loaded=False, replaying=False) as running:
        await asyncio.gather(running.raw.load(), running.raw.load())
        assert {sample.name: sample.value for sample in running.raw.samples()}["gateway_raw_messages"] == 2


async def test_raw_message_of_another_product_is_stored_once(tmp_path: Path) -> None:
    codecs = two_products()
    async with life(tmp_path, MemoryJournal(), codecs=codecs) as running:
        await running.registry.register([home("a", profile="q"), home("b", profile="q")])
        running.send(*said("a", [1]))
        await acknowledged(running)
        running.send(*said("a", [2]), (topic("b"), b"{"), *said("b", [1]))
        await acknowledged(running)
        stored = {name: kept.stored.messages for name, kept in running.raw.topics.items()}
        assert stored == {topic("a"): 2, topic("b"): 2}


async def test_raw_of_an_ingest_that_ends_halfway_is_sent_again_and_not_counted_twice(tmp_path: Path) -> None:
    async with life(tmp_path, MemoryJournal()) as running:
        running.disk.full = True
        running.send(*said("a", [1]))
        await until(lambda: running.raw.reasons() != [])
    assert (running.telemetry.dropped, running.telemetry.acknowledged, running.raw.topics) == (1, [], {})
