"""A start that only releases does without what was stored where that cannot be read, and leaves it as it is."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.app import recording as module
from gateway.app.daemon import gateway
from gateway.app.last_runs import noted_run
from gateway.clock import SteadyClock, SystemClock
from gateway.config.loader import load_settings
from gateway.domain.runs import ENDS_MAX
from tests.config.test_settings import write

RECORDING = {"ingest", "recorder", "log-writer", "repair", "checkpoint"}
UNREAD = "telemetry: what was stored cannot be read; no energy is taken"
PROFILES = Path(__file__).parents[2] / "device_profiles"


def settings_of(directory: Path) -> Any:
    """A gateway without a broker that answers."""
    return load_settings(write(directory, http={"port": 0}, profiles_dir=str(PROFILES)))


async def seen(directory: Path) -> tuple[set[str], list[str], str]:
    """The services of a run, what it says and its scrape."""
    async with gateway(settings_of(directory), clock=SteadyClock(SystemClock())) as running:
        services = {part.service for part in running.parts if part.service}
        return services, running.readiness.now().reasons, (await running.parts.metrics().text()).decode()


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def unreadable(**_: object) -> None:
    raise KeyError("a bug")


async def test_nothing_is_recorded_where_what_was_stored_cannot_be_read_and_readiness_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, reasons, _ = await seen(tmp_path)
    assert services >= RECORDING
    assert UNREAD not in reasons
    state_dir = settings_of(tmp_path).state_dir
    stored = {name for name in files(state_dir) if name.startswith(("spool", "checkpoint"))}
    assert stored
    for _ in range(ENDS_MAX):
        with suppress(KeyError), noted_run(state_dir):
            raise KeyError("a bug")
    monkeypatch.setattr(module, "recover", unreadable)
    services, reasons, text = await seen(tmp_path)
    assert not services & RECORDING
    assert {UNREAD, "service recovery: KeyError"} <= set(reasons)
    assert "gateway_spool" not in text
    assert {name for name in files(state_dir) if name.startswith(("spool", "checkpoint"))} == stored


async def test_any_other_start_is_refused_where_what_was_stored_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "recover", unreadable)
    with pytest.raises(KeyError):
        await seen(tmp_path)
