"""An asyncio loop on virtual time.

`time()` stands still while there is anything to do and then jumps to the next timer. There is something to do while a
callback is ready, a socket has bytes that somebody wants, a thread has a job or a child process runs:

- Sockets on loopback stay inside the process (tests/virtual/sockets.py): what was sent can be read at once. Other
  addresses are nobody's: a connection attempt is never answered, a name is not known.
- Jobs of `run_in_executor` and `to_thread` run one after the other, in the order in which they were handed in, on the
  thread they belong to, each when the loop has nothing else to do or has turned `PATIENCE` times meanwhile; the loop
  waits for it and does nothing meanwhile. So a job takes no virtual time, and what it does falls between the same two
  callbacks in every run.
- Other threads' work is declared: `with loop.hold("name")` around it, or `loop.holds.append(predicate)`.

Where nothing is left that could ever happen, `Deadlock` names the tasks and the lines they wait in.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import itertools
import selectors
import socket
from collections.abc import Callable, Iterator
from typing import Any

from tests.virtual import others
from tests.virtual.sockets import LocalSocket, Network

START_S = 1000.0
# A thread or a child that takes so long, in real time, waits for something that will never come.
STUCK_S = 60.0
TURNS_MAX = 3_000_000
PATIENCE = 200


class Deadlock(RuntimeError):
    """Nothing can ever happen any more, or nothing ends."""


class _Selector(selectors.EpollSelector):
    """Asks the loop what to do when there is nothing to do."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            self.loop.count_turn()
            return events
        return self.loop.idle(timeout)

    def wait(self, timeout_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Block, in real time."""
        return super().select(timeout_s)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. `jumps` counts how often time moved, `jobs_run` how many jobs of threads ran."""

    def __init__(self) -> None:
        self._now_s = START_S
        self._virtual_selector = _Selector()
        self._virtual_selector.loop = self
        self._jobs: collections.deque[_Job] = collections.deque()
        self._children = 0
        self._held: collections.Counter[str] = collections.Counter()
        self._turns = self._looked = 0
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        self.holds: list[Callable[[], bool]] = []
        self.jumps = 0
        self.jobs_run = 0
        self.network = Network()
        super().__init__(self._virtual_selector)
        self._clock_resolution = 1e-9
        self._numbers = itertools.count()
        self.set_task_factory(self._numbered)
        self._undo = others.install(self, self.network, self.holds)

    def close(self) -> None:
        if not self.is_closed():
            self._undo()
        super().close()

    @staticmethod
    def _numbered(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        return _Task(coroutine, loop=loop, **more)

    # -- time ----------------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def count_turn(self) -> None:
        """Raises Deadlock where callbacks follow each other for ever and time never moves."""
        self._turns += 1
        if self._jobs and self._turns - self._looked >= PATIENCE:
            self._run_job()
        if self._turns > TURNS_MAX:
            self._turns = 0
            raise Deadlock(f"{TURNS_MAX} turns and time has not moved; {self._tasks()}")

    def idle(self, timeout_s: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing is ready: run a job, wait for threads and children, or jump. Returns what is ready then."""
        if self._jobs:
            self._run_job()
            return self._virtual_selector.wait(0)
        if self._children or self._is_held():
            return self._wait_outside()
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if timeout_s is None or not scheduled:
            raise Deadlock(f"nothing is left that could happen; {self._tasks()}")
        self._now_s = max(self._now_s, scheduled[0].when())
        self._turns = self._looked = 0
        self.jumps += 1
        return []

    def _is_held(self) -> bool:
        return self._held.total() > 0 or any(busy() for busy in self.holds)

    def _wait_outside(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Until a child or a thread that is not ours says something, or has no work any more."""
        for _ in range(round(STUCK_S / 0.01)):
            events = self._virtual_selector.wait(0.01)
            if events or not (self._children or self._is_held()):
                return events
        raise Deadlock(f"{self._children} children and {dict(self._held)} took {STUCK_S:.0f} real s; {self._tasks()}")

    def _tasks(self) -> str:
        """Who waits where."""
        lines = []
        for task in asyncio.all_tasks(self):
            stack = task.get_stack(limit=1)
            place = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "nowhere"
            lines.append(f"{task.get_name()} at {place}")
        return "tasks: " + (", ".join(sorted(lines)) or "none")

    # -- threads and children ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Time stands still meanwhile: something is under way that the loop does not see."""
        self._held[name] += 1
        try:
            yield
        finally:
            self._held[name] -= 1

    def run_in_executor(  # type: ignore[override]
        self, executor: concurrent.futures.Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """The job is carried out even if nobody waits for it any more: a thread that has begun is not stopped."""
        if executor is None:
            if self._executor is None:
                self._executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="virtual")
            executor = self._executor
        job = _Job(executor, functools.partial(func, *args), self.create_future())
        if not self._jobs:
            self._looked = self._turns
        self._jobs.append(job)
        return job.done

    def _run_job(self) -> None:
        job = self._jobs.popleft()
        self.jobs_run += 1
        self._looked = self._turns
        try:
            running = job.executor.submit(job.work)
        except RuntimeError as error:  # the executor has been shut down
            _settle(job.done, error=error)
            return
        if running not in concurrent.futures.wait([running], timeout=STUCK_S).done:
            raise Deadlock(f"{job.work} took {STUCK_S:.0f} real s: it waits for a loop that waits for it")
        failed = running.exception()
        if failed is not None:
            _settle(job.done, error=failed)
        else:
            _settle(job.done, result=running.result())

    async def shutdown_default_executor(self) -> None:
        while self._jobs:
            self._run_job()
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None

    async def _make_subprocess_transport(self, *args: Any, **more: Any) -> Any:
        self._children += 1
        try:
            return await super()._make_subprocess_transport(*args, **more)  # type: ignore[misc]
        except BaseException:
            self._children -= 1
            raise

    def _child_watcher_callback(self, pid: int, returncode: int, transport: Any) -> None:
        self.call_soon_threadsafe(self._child_gone)
        super()._child_watcher_callback(pid, returncode, transport)  # type: ignore[misc]

    def _child_gone(self) -> None:
        self._children -= 1

    # -- connections ---------------------------------------------------------------------------------------------

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not self.network.is_local(name):
            raise socket.gaierror(socket.EAI_NONAME, f"{name}: only loopback is known here")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", int(port or 0)))]

    async def create_server(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: int | None = None, *, sock: Any = None, **more: Any
    ) -> asyncio.Server:
        for name in ("family", "flags", "reuse_address", "reuse_port", "keep_alive"):
            more.pop(name, None)
        if isinstance(host, list | tuple):
            host = host[0] if host else None
        if sock is None:
            sock = self.network.listener(host, port)
        elif not isinstance(sock, LocalSocket):
            # aiohttp's test server binds one before it asks the loop, and reads the port from the server afterwards
            sock.close()
            sock = self.network.listener(None, None)
        server: asyncio.Server = await super().create_server(factory, sock=sock, **more)
        return server

    async def create_connection(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **more: Any
    ) -> Any:
        for name in ("family", "proto", "flags", "local_addr", "happy_eyeballs_delay", "interleave", "all_errors"):
            more.pop(name, None)
        if sock is None:
            sock = await self.reach(host, port)
            if more.get("ssl") and not more.get("server_hostname"):
                more["server_hostname"] = host
        elif not isinstance(sock, LocalSocket):
            raise ValueError("virtual time has no place for a socket of the machine")
        return await super().create_connection(factory, sock=sock, **more)

    async def reach(self, host: str | None, port: int) -> LocalSocket:
        """A connected socket. An address of nobody swallows every packet: that attempt never ends."""
        await asyncio.sleep(0)
        if not self.network.is_local(host):
            await self.getaddrinfo(host, port) if not _is_number(host) else await self.create_future()
        return self.network.dial(host, port)


class _Task(asyncio.Task[Any]):
    """A task whose place in a set (task groups keep their tasks in one) is the same in every run."""

    def __init__(self, coroutine: Any, *, loop: Any, **more: Any) -> None:
        self._number = next(loop._numbers)
        super().__init__(coroutine, loop=loop, **more)

    def __hash__(self) -> int:
        return int(self._number)

    def __eq__(self, other: object) -> bool:
        return self is other


class _Job:
    __slots__ = ("done", "executor", "work")

    def __init__(self, executor: concurrent.futures.Executor, work: Callable[[], Any], done: asyncio.Future[Any]):
        self.executor = executor
        self.work = work
        self.done = done


def _settle(future: asyncio.Future[Any], *, result: Any = None, error: BaseException | None = None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _is_number(host: str | None) -> bool:
    """Whether it is an address and not a name."""
    try:
        socket.inet_aton(host or "")
    except OSError:
        return ":" in (host or "")
    return True
