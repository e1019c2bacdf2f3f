"""Which failures of services end the process, and which never do."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.clock import ManualClock
from gateway.domain.errors import InvariantBroken, LinkDown, PeerRefused, StorageError
from gateway.observability.parts import Importance
from gateway.services.runtime.supervisor import BUDGET_MS, RESTARTS_MAX, Supervisor
from tests.virtual.clock import loop_clock

ENDING = (Importance.ESSENTIAL, Importance.VITAL)
OTHERS = (Importance.NEEDED, Importance.SPARE)


@asynccontextmanager
async def supervised(
    service: Callable[[], Awaitable[None]], importance: Importance, *, may_end: bool = True
) -> AsyncIterator[Supervisor]:
    """A supervisor that keeps one service."""
    supervisor = Supervisor(rng=random.Random(1), clock=loop_clock(), may_end=may_end)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervisor.keep("control", service, importance), name="control")
        yield supervisor
        task.cancel()


def failing(error: Exception, *, after_s: float = 0.0) -> Callable[[], Awaitable[None]]:
    async def service() -> None:
        await asyncio.sleep(after_s)
        # one that is raised again would carry all its tracebacks
        raise error.with_traceback(None)

    return service


async def ends(supervisor: Supervisor, *, within_s: float = 900) -> str | None:
    """Why the process must end; None = it goes on."""
    try:
        async with asyncio.timeout(within_s):
            return await supervisor.ended()
    except TimeoutError:
        return None


@pytest.mark.parametrize(
    "error",
    [
        InvariantBroken("no lease is endless"),
        ExceptionGroup("tick", [LinkDown("away"), InvariantBroken("no lease is endless")]),
    ],
)
async def test_broken_invariant_in_a_vital_service_ends_the_process_at_once_and_is_named(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with supervised(failing(error), Importance.VITAL) as supervisor:
        why = await ends(supervisor, within_s=0.1)
        assert why == "control: broken invariant: no lease is endless"
        assert supervisor.health["control"].restarts == 0
    lines = [vars(record)["reason"] for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert lines == [why]


@pytest.mark.parametrize("importance", ENDING)
async def test_essential_service_that_fails_once_more_than_its_budget_ends_the_process(importance: Importance) -> None:
    async with supervised(failing(KeyError("a bug")), importance) as supervisor:
        why = await ends(supervisor, within_s=60)
        assert why is not None
        assert why.startswith(f"control: {RESTARTS_MAX + 1} failures within 60 s, the last KeyError")
        assert supervisor.health["control"].restarts == RESTARTS_MAX


@pytest.mark.parametrize("importance", ENDING)
async def test_essential_service_that_fails_seldom_is_restarted_for_ever(importance: Importance) -> None:
    seldom_s = BUDGET_MS / 1000 / RESTARTS_MAX + 1
    async with supervised(failing(KeyError("a bug"), after_s=seldom_s), importance) as supervisor:
        assert await ends(supervisor) is None
        assert supervisor.health["control"].restarts > 30


@pytest.mark.parametrize("error", [LinkDown("away"), PeerRefused("no"), StorageError("full")])
@pytest.mark.parametrize("importance", ENDING)
async def test_error_that_may_pass_never_counts_towards_the_budget(importance: Importance, error: Exception) -> None:
    async with supervised(failing(error), importance) as supervisor:
        assert await ends(supervisor) is None
        assert supervisor.health["control"].restarts > RESTARTS_MAX


@pytest.mark.parametrize("error", [KeyError("a bug"), InvariantBroken("a bug")])
@pytest.mark.parametrize("importance", OTHERS)
async def test_service_that_is_not_essential_never_ends_the_process(importance: Importance, error: Exception) -> None:
    async with supervised(failing(error), importance) as supervisor:
        assert await ends(supervisor) is None


async def test_service_that_is_refused_is_restarted_less_often_than_one_that_may_recover_by_itself() -> None:
    restarts = []
    for error in (LinkDown("away"), PeerRefused("no")):
        async with supervised(failing(error), Importance.NEEDED) as supervisor:
            await ends(supervisor)
            restarts.append(supervisor.health["control"].restarts)
    assert restarts[1] * 4 < restarts[0]


async def test_nothing_ends_the_process_where_no_service_is_essential() -> None:
    async with supervised(failing(InvariantBroken("a bug")), Importance.VITAL, may_end=False) as supervisor:
        assert await ends(supervisor) is None
        assert supervisor.health["control"].restarts > RESTARTS_MAX


def test_part_that_cannot_begin_is_told_as_one_that_does_not_run(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor(rng=random.Random(1), clock=ManualClock())

    def broken() -> int:
        raise KeyError("a bug")

    assert supervisor.attempt("sound", lambda: 7) == 7
    assert supervisor.attempt("recovery", broken) is None
    assert {name: health.failing for name, health in supervisor.health.items()} == {"recovery": "KeyError"}
    assert [vars(record)["service"] for record in caplog.records if record.exc_info] == ["recovery"]
