"""The loop on virtual time: when its clock jumps, when it must not, and what it says where nothing can happen."""

import asyncio
import concurrent.futures
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.virtual.clock import START_UTC_MS, VirtualClock
from tests.virtual.loop import START_S, Deadlock, VirtualLoop

DAY_S = 86_400.0


def current() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


# -- time ------------------------------------------------------------------------------------------------------------


async def test_time_while_anything_is_ready_stands_still() -> None:
    loop = current()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert loop.time() == START_S
    assert loop.jumps == 0


async def test_time_jumps_from_timer_to_timer_in_their_order() -> None:
    loop, seen = current(), list[tuple[str, float]]()

    async def wait(name: str, s: float) -> None:
        await asyncio.sleep(s)
        seen.append((name, loop.time() - START_S))

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for name, s in (("day", DAY_S), ("moment", 0.001), ("minute", 60.0), ("month", 30 * DAY_S)):
            group.create_task(wait(name, s))
    assert [name for name, _ in seen] == ["moment", "minute", "day", "month"]
    assert [at for _, at in seen] == pytest.approx([0.001, 60.0, DAY_S, 30 * DAY_S])
    assert time.monotonic() - began < 30


async def test_time_of_a_cancelled_timer_is_not_stopped_at() -> None:
    loop = current()
    loop.call_later(5.0, pytest.fail, "it was cancelled").cancel()
    await asyncio.sleep(10.0)
    assert loop.jumps == 1


async def test_timeout_ends_what_waits_at_its_own_time() -> None:
    loop = current()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(7.5):
            await asyncio.sleep(DAY_S)
    assert loop.time() == START_S + 7.5


async def test_cancellation_reaches_what_waits_before_its_timer() -> None:
    loop = current()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(asyncio.sleep(DAY_S))
        await asyncio.sleep(1.0)
        waiting.cancel()
    assert waiting.cancelled()
    assert loop.time() == START_S + 1.0


async def test_clock_shows_the_time_of_the_loop() -> None:
    clock = VirtualClock()
    begin = clock.now()
    assert begin.utc_ms == START_UTC_MS
    await asyncio.sleep(90.25)
    assert (clock.now().utc_ms, clock.now().mono_ms) == (begin.utc_ms + 90_250, begin.mono_ms + 90_250)


@pytest.mark.parametrize("steps", [1, 3, 7, 1000])
async def test_clock_after_a_wait_for_a_moment_has_reached_it(steps: int) -> None:
    """No rounding leaves a deadline a millisecond ahead of who has waited for it."""
    clock = VirtualClock()
    for n in range(steps):
        until_ms = clock.mono_ms() + 17 * n + 1
        await asyncio.sleep((until_ms - clock.mono_ms()) / 1000)
        assert clock.mono_ms() == until_ms


# -- nothing left ----------------------------------------------------------------------------------------------------


def test_deadlock_nothing_left_to_happen_names_the_tasks() -> None:
    async def main() -> None:
        asyncio.current_task().set_name("the main one")  # type: ignore[union-attr]
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait(), name="never told")

    with pytest.raises(Deadlock, match=r"never told at .*the main one at .*test_loop\.py"):
        run(main)


def test_deadlock_while_a_timer_is_left_is_none() -> None:
    async def main() -> str:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(DAY_S, event.set)
        await event.wait()
        return "told"

    assert run(main) == "told"


def test_deadlock_turns_without_end_at_one_moment_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.virtual.loop.TURNS_MAX", 1000)

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Deadlock, match="time has not moved"):
        run(main)


def test_deadlock_job_that_waits_for_the_loop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.virtual.loop.STUCK_S", 0.05)
    told = threading.Event()

    async def main() -> None:
        await asyncio.to_thread(told.wait)

    try:
        with (
            pytest.raises(Deadlock, match="waits for a loop that waits for it"),
            asyncio.Runner(loop_factory=VirtualLoop) as runner,
        ):
            try:
                runner.run(main())
            finally:
                told.set()
    finally:
        told.set()


# -- threads ---------------------------------------------------------------------------------------------------------


async def test_job_of_a_thread_takes_no_virtual_time() -> None:
    loop = current()
    threads = set[int]()

    def work() -> int:
        time.sleep(0.05)
        threads.add(threading.get_ident())
        return 7

    async with asyncio.timeout(0.001):
        assert await asyncio.to_thread(work) == 7
    assert loop.time() == START_S
    assert threading.get_ident() not in threads


async def test_job_begins_when_all_else_is_done_and_they_keep_their_order() -> None:
    seen = list[str]()

    def work(name: str) -> None:
        # The later one is the quicker one.
        time.sleep(0.02 if name == "first" else 0.0)
        seen.append(name)

    async def turns() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        seen.append("turns")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(pool, work, name) for name in ("first", "second", "third")), turns()
        )
    assert seen == ["turns", "first", "second", "third"]


async def test_job_that_a_turning_loop_waits_for_is_not_put_off_for_ever() -> None:
    done = list[str]()
    waiting = asyncio.ensure_future(asyncio.to_thread(done.append, "done"))
    while not done:
        await asyncio.sleep(0)
    await waiting
    assert current().time() == START_S


async def test_job_runs_on_the_thread_of_its_executor() -> None:
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        names = [await loop.run_in_executor(pool, lambda: threading.current_thread().name) for _ in range(3)]
    assert names == ["mine_0"] * 3


async def test_job_that_raises_and_a_pool_that_is_shut_tell_the_waiter() -> None:
    def fail() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        await asyncio.to_thread(fail)
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        await asyncio.get_running_loop().run_in_executor(pool, fail)


async def test_job_whose_waiter_is_cancelled_is_carried_out() -> None:
    done = list[str]()
    waiting = asyncio.ensure_future(asyncio.to_thread(done.append, "done"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(1.0)
    assert waiting.cancelled()
    assert done == ["done"]


async def test_hold_work_of_another_thread_keeps_time_still() -> None:
    loop, done = current(), asyncio.Event()

    def work() -> None:
        time.sleep(0.05)
        loop.call_soon_threadsafe(done.set)

    with loop.hold("thread"):
        threading.Thread(target=work).start()
        async with asyncio.timeout(0.001):
            await done.wait()
    assert loop.time() == START_S


async def test_hold_told_by_a_predicate_keeps_time_still_while_it_is_so() -> None:
    loop, busy = current(), threading.Event()

    def work() -> None:
        time.sleep(0.05)
        busy.clear()

    busy.set()
    loop.holds.append(busy.is_set)
    threading.Thread(target=work).start()
    await asyncio.sleep(1.0)
    assert not busy.is_set()


async def test_child_that_runs_keeps_time_still() -> None:
    loop = current()
    child = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.1; echo well", stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(0.001):
        out, _ = await child.communicate()
    assert out == b"well\n"
    assert child.returncode == 0
    assert loop.time() == START_S


# -- connections -----------------------------------------------------------------------------------------------------


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_bytes_on_the_way_arrive_before_time_moves() -> None:
    loop = current()
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    assert writer.get_extra_info("peername") == (host, port)
    sent = bytes(range(256)) * 40_000
    async with asyncio.timeout(0.001):
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent
    assert loop.time() == START_S
    writer.close()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.001)


def test_ports_are_the_same_in_every_run() -> None:
    async def main() -> list[int]:
        servers = [await asyncio.start_server(_echo, "127.0.0.1", 0) for _ in range(3)]
        found = [int(server.sockets[0].getsockname()[1]) for server in servers]
        for server in servers:
            server.close()
        return found

    first = run(main)
    assert first == run(main)
    assert len(set(first)) == 3


async def test_writer_is_paused_while_nobody_reads_and_goes_on_when_somebody_does() -> None:
    arrived = asyncio.Event()
    sizes = list[int]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await arrived.wait()
        while data := await reader.read(65_536):
            sizes.append(len(data))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(bytes(8 << 20))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await writer.drain()
    arrived.set()
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.001)
    assert sum(sizes) == 8 << 20
    server.close()
    await server.wait_closed()


async def test_connection_to_nobody_is_refused_and_a_taken_port_is_taken() -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        await asyncio.start_server(_echo, "127.0.0.1", port)
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    again = await asyncio.start_server(_echo, "127.0.0.1", port)
    again.close()


async def test_connection_to_an_address_of_nobody_is_never_answered_and_a_name_is_unknown() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await asyncio.open_connection("192.0.2.1", 502)
    with pytest.raises(OSError, match="only loopback"):
        await asyncio.open_connection("battery.example", 502)


async def test_abort_with_unread_bytes_resets_the_peer() -> None:
    peers = list[asyncio.StreamWriter]()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        peers.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await asyncio.sleep(0.001)
    writer.write(b"nobody reads this")
    await writer.drain()
    peers[0].transport.abort()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    server.close()
    await asyncio.sleep(0.001)


async def test_http_server_and_client_meet_without_time() -> None:
    loop = current()

    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"from": request.remote, "n": int(request.query["n"])})

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession() as session:
        for n in range(3):
            async with session.get(f"http://{host}:{port}/?n={n}") as response:
                assert await response.json() == {"from": "127.0.0.1", "n": n}
    assert loop.time() == START_S
    await runner.cleanup()


async def test_trace_names_every_byte_in_order() -> None:
    trace = list[tuple[str, bytes]]()
    current().network.on_bytes = lambda what, own, peer, data: trace.append((what, data))
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello")
    assert await reader.read(5) == b"hello"
    assert trace == [("sent", b"hello"), ("read", b"hello"), ("sent", b"hello"), ("read", b"hello")]
    writer.close()
    server.close()
    await asyncio.sleep(0.001)


def test_loops_that_close_in_another_order_than_they_were_made_leave_nothing_behind() -> None:
    def clock() -> Callable[[], float]:
        found: Callable[[], float] = vars(aiohttp.connector)["monotonic"]
        return found

    was = (random.Random, clock())

    async def jitter() -> tuple[float, float]:
        return random.Random().random(), clock()()

    first, second = VirtualLoop(), VirtualLoop()
    one = first.run_until_complete(jitter())
    assert second.run_until_complete(jitter()) == one
    assert one[1] == START_S
    real = asyncio.new_event_loop()
    assert real.run_until_complete(jitter())[1] != START_S
    real.close()
    first.close()
    assert second.run_until_complete(jitter())[1] == START_S
    second.close()
    assert (random.Random, clock()) == was
