"""What REST shows of grid programs: their rules, and what these leave to be dispatched."""

from collections.abc import Mapping
from types import MappingProxyType

from gateway.api.program_models import AllowanceBody, AllowedBody, AllowedList, ProgramList, ProgramRow, ProgramState
from gateway.clock import Clock
from gateway.domain.rules.allowed import allowances_left, allowed_spans
from gateway.domain.rules.calendar import united
from gateway.programs.loader import LoadedProgram
from gateway.programs.summary import plain, program_summary
from gateway.schemas.interval_rows import rfc3339
from gateway.services.events.intake import Dispatcher


class ProgramView:
    """Reads from what was loaded and from the dispatcher; decides nothing."""

    def __init__(
        self, *, dispatcher: Dispatcher, clock: Clock, programs: Mapping[str, LoadedProgram] = MappingProxyType({})
    ) -> None:
        self._programs = programs
        self._summaries = {name: program_summary(loaded) for name, loaded in programs.items()}
        self._dispatcher = dispatcher
        self._clock = clock

    def all(self) -> ProgramList:
        """Every program, by name."""
        return ProgramList(programs=[self._row(loaded) for loaded in self._programs.values()])

    def one(self, name: str) -> ProgramState | None:
        """A program with its rules; None = there is none of this name."""
        loaded = self._programs.get(name)
        return None if loaded is None else ProgramState(**dict(self._row(loaded)), rules=plain(loaded.document))

    async def allowed(self, name: str, from_ms: int, until_ms: int) -> AllowedList | None:
        """What could be dispatched from `from_ms` until `until_ms` (UTC); None = there is no such program. Raises
        StorageError."""
        loaded = self._programs.get(name)
        if loaded is None:
            return None
        rules, now = self._dispatcher.rules, self._clock.now()
        await rules.recall(now)
        used = rules.used(name, self._dispatcher.entries(), now)
        events = united(span for spans in used.values() for span in spans)
        left = allowances_left(loaded.program, from_ms, until_ms, events)
        return AllowedList(
            program=name,
            start=rfc3339(from_ms),
            end=rfc3339(until_ms),
            spans=[
                AllowedBody(
                    start=rfc3339(one.span[0]), end=rfc3339(one.span[1]), version=one.version,
                    notice_by=None if one.notice_by_ms is None else rfc3339(one.notice_by_ms),
                )
                for one in allowed_spans(loaded.program, from_ms, until_ms, left)
            ],
            left=[
                AllowanceBody(
                    rule=one.rule, version=one.version, per=one.per.value, start=rfc3339(one.within[0]),
                    end=rfc3339(one.within[1]), most=one.most, used=round(one.used, 3), left=round(one.left, 3),
                    effect=one.effect.value, evidence=one.certainty.value,
                )
                for one in left
            ],
        )  # fmt: skip

    def _row(self, loaded: LoadedProgram) -> ProgramRow:
        told = self._summaries[loaded.program.id]
        version = loaded.program.version_at(self._clock.now().utc_ms)
        return ProgramRow(
            program=told.program,
            title=told.title,
            pricing=told.pricing,
            zone=told.zone,
            in_force=None if version is None else version.name,
            versions=[*told.versions],
            values=told.values,
            unverified=told.unverified,
            digest=told.digest,
        )
