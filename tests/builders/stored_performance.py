"""Events whose performance is stored, in a state directory."""

from pathlib import Path

from gateway.domain.programs.revised import InputKind
from gateway.domain.rules.performance import BaselineMethod, Formula
from gateway.schemas.performance import figure_plain, performance_plain
from gateway.storage.programs.event_revisions import EventRevisions, NewRevision
from tests.builders.played_events import HOUR_MS, SIX_PM_MS, Played, even, program

NOBODY = {"left_out": {"count": 0, "some": []}}


def stored_event(
    state_dir: Path, event: str = "e", *, homes: int = 2, days: int = 0, because: tuple[str, ...] = (), kw: float = 4.0
) -> None:
    """A revision of an event of the program `p`, `days` after 6 May 2025, in which each home gave `kw`."""
    from_ms = SIX_PM_MS + days * 24 * HOUR_MS
    found = Played(
        version=program(BaselineMethod.NONE, Formula.ENERGY), battery_wh=[even(kw)] * homes, asked_wh=5_000.0,
        from_ms=from_ms, until_ms=from_ms + HOUR_MS,
    ).performance()  # fmt: skip
    new = NewRevision(
        event=event, occurrence_ms=from_ms, program="p", from_ms=from_ms, until_ms=from_ms + HOUR_MS, digest=f"{kw}",
        because=because, inputs={InputKind.PROGRAM: {"version": "one"}}, summary=performance_plain(found) | NOBODY,
        figures={
            level.value: [figure_plain(figure) for figure in figures] for level, figures in found.figures.items()
        },
    )  # fmt: skip
    with EventRevisions(state_dir, write=True) as store:
        store.put(new, from_ms + HOUR_MS + 40_000)
