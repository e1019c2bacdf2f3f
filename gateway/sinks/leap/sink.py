"""Uploads interval records to the aggregator: files of 15-minute energy, each followed to its end.

Unknown energy is never sent: a row without energy or with too little coverage is withheld and refused. A file is taken
whole or not at all. One that FAILED goes up again without the rows that its errors name; where they name none, it goes
up in halves until the row is found that makes its file fail. A row is refused only on evidence against this row: the
aggregator named it, or took files without it and none with it. Where it refuses everything, the sink stops and a person
is told. What was taken is on disk before the next file leaves, so that a crash repeats nothing.

Not public and assumed until confirmed (`confirmed`): that the upload's schema is the one configured; that generated and
consumed energy is enough. Whether the header counts as line 1 is found out by a file of one row, once. Refused rows can
be sent later, alone; whoever keeps them drops those that a newer revision has overtaken.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gateway.clock import Clock
from gateway.domain.errors import InvariantBroken
from gateway.domain.types import DeviceId
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.ports.sinks import Accept, IntervalBatch, Keep, MissingInterval, Reject, SinkResult, Stop
from gateway.schemas.interval_rows import rfc3339
from gateway.sinks.leap.api import LeapApi
from gateway.sinks.leap.batch import Prepared, Rules, prepare, rows_of
from gateway.sinks.leap.confirmed import LeapConfirmed
from gateway.sinks.leap.evidence import (
    NOTHING_TAKEN,
    ROW_REASONS,
    UNEXPLAINED,
    Attempt,
    about_format,
    named_rows,
    told_lines,
)
from gateway.sinks.leap.meters import MeterFile
from gateway.sinks.leap.missing import search
from gateway.sinks.leap.outbox import TAKEN, Outbox, Outgoing, Past, Row, digest
from gateway.sinks.leap.over_http import HttpUpload
from gateway.sinks.leap.over_sftp import SftpUpload
from gateway.sinks.leap.replies import COMPLETED, FAILED
from gateway.sinks.leap.rows import FUTURE_CODES, Document, LeapMeter
from gateway.sinks.leap.settings import LeapCsvSinkSettings
from gateway.sinks.leap.stats import LeapStats
from gateway.sinks.leap.transport import Ended, Transport

log = logging.getLogger(__name__)

FILES_MAX = 200
"""Files of one try; a batch that needs more is gone on with at the next."""
ALONE_MAX = 3
"""A batch of one row that FAILED for no row is tried so often, and so many such batches in a row are refused."""
EARLY_WAIT_MS, EARLY_TRIES, EARLY_WAIT_MAX_S = 60_000, 11, 3600.0
"""A row that the aggregator takes for future waits that long, and twice as long each time: a day and a half in all."""


class LeapCsvSink(Part):
    """The aggregator as a sink. `directory`: its own, for the outbox. Create it inside a running loop; end it with
    `close`."""

    def __init__(
        self, settings: LeapCsvSinkSettings, *, clock: Clock, directory: Path, confirmed: LeapConfirmed | None = None
    ) -> None:
        self.name = settings.name
        self.batch_rows = settings.batch_rows
        self.stats = LeapStats()
        self.settings = settings
        self._confirmed = confirmed or LeapConfirmed()
        self._clock = clock
        self._file = MeterFile(settings.meters)
        self._outbox = Outbox(directory)
        self._early: dict[Row, tuple[int, int]] = {}
        self._alone: dict[Row, int] = {}
        self._alone_refused = 0
        self._api = _api(settings)
        self._transport = _transport(settings, self._api, clock)

    @property
    def meters_known(self) -> int:
        """Devices that have a meter."""
        return self._file.count

    @property
    def meters_failing(self) -> str | None:
        """Why the newest file of meters is not in force."""
        return self._file.failing

    @property
    def past(self) -> Past:
        """The newest file and the newest accepted row."""
        return self._outbox.past

    @property
    def current(self) -> Outgoing | None:
        """The file that is on its way."""
        return self._outbox.current

    @property
    def can_be_asked(self) -> bool:
        """Whether there is an HTTP interface to ask what is missing."""
        return self._api is not None

    def samples(self) -> Iterator[Sample]:
        return self.stats.samples(self.name, meters=self.meters_known, failing=self.meters_failing is not None)

    async def recall(self) -> None:
        """Read what an earlier run left on disk, once. Raises OSError."""
        await asyncio.to_thread(self._outbox.load, self.settings.transport)

    async def close(self) -> None:
        await self._transport.close()
        if self._api is not None:
            await self._api.close()

    def look(self) -> None:
        """Read the file of meters if it has changed, every few seconds at most."""
        self._meters()

    def wants(self, device: DeviceId, length_s: int) -> bool:
        """Whether the record is of 15 minutes and its device has a meter (any may, while no meters are known)."""
        return self._file.wants(device, length_s)

    def pick(self, devices: Sequence[DeviceId], lengths_s: Sequence[int]) -> list[bool]:
        """What it wants by the newest file of meters; notes which devices with a meter have another length."""
        self.look()
        picked = self._file.pick(devices, lengths_s)
        self.stats.other_length = len(self._file.other_length)
        return picked

    async def send(self, batch: IntervalBatch) -> SinkResult:
        meters = self._meters()
        if meters is None:
            return Keep(reason="meters_unreadable")
        try:
            await self.recall()
            kept = await self._finish_earlier()
            if kept is not None:
                return kept
            return await self._sent(batch, await self._prepared(batch, meters))
        except OSError as error:
            log.error("the outbox cannot be written", extra={"sink": self.name, "error": str(error)})
            return Keep(reason="outbox_unwritable")

    async def settled(self, batch: IntervalBatch) -> None:
        meters = self._meters() or {}
        rows = await asyncio.to_thread(lambda: rows_of(batch.rows, meters))
        if self._early or self._alone:
            for row in rows:
                self._early.pop(row, None)
                self._alone.pop(row, None)
        try:
            await asyncio.to_thread(self._outbox.settle, rows, again=batch.again)
        except OSError as error:
            log.error("the outbox cannot be written", extra={"sink": self.name, "error": str(error)})

    async def missing(self, from_ms: int, to_ms: int) -> list[MissingInterval] | Keep | Stop:
        """The intervals that the aggregator still waits for between two times, cut to them; Keep or Stop when it cannot
        be asked."""
        if self._api is None:
            return Stop(reason="no_url", detail="what is missing can only be asked over HTTP, and `url` is not set")
        devices = {meter.id: device for device, meter in (self._file.newest or {}).items()}
        found = await search(self._api, devices, from_ms, to_ms, names=self.settings.missing_names)
        if isinstance(found, Keep | Stop):
            return found
        self.stats.missing_unread += found.unread
        return found.intervals

    def _meters(self) -> Mapping[DeviceId, LeapMeter] | None:
        return self._file.current(self._clock.mono_ms())

    async def _noted(self, file: Outgoing) -> None:
        await asyncio.to_thread(self._outbox.note, file)

    async def _prepared(self, batch: IntervalBatch, meters: Mapping[DeviceId, LeapMeter]) -> Prepared:
        """The batch's file."""
        now_ms = self._clock.now().utc_ms
        rules = Rules(
            min_coverage_pct=self.settings.min_coverage_pct, final=self.settings.final, net=self._confirmed.net
        )
        held = {row for row, (_, until_ms) in self._early.items() if now_ms < until_ms}
        known = self._outbox.known(again=batch.again)
        return await asyncio.to_thread(
            lambda: prepare(batch.rows, meters, rules, known=known, held=held, now_ms=now_ms)
        )

    async def _finish_earlier(self) -> Keep | Stop | None:
        """Follow the file of an earlier try to its end, and draw the conclusion as from any other."""
        file = self._outbox.current
        if file is None:
            return None
        ended = await self._followed(file)
        # what is not settled yet is of the batch that this file belongs to
        taken = TAKEN in self._outbox.known(again=file.again).values()
        here = Attempt(files=deque(), rows=file.rows, again=file.again, taken=taken)
        document = await asyncio.to_thread(Document.read, file.body)
        return await self._concluded(here, document, ended) or await self._all(here)

    async def _sent(self, batch: IntervalBatch, prepared: Prepared) -> SinkResult:
        """Send what is due, and account for every row."""
        if prepared.wrong_clock:
            return Keep(reason="clock_behind")
        self.stats.superseded += sum(map(len, prepared.over.values()))
        rows = prepared.rows
        files = deque([prepared.document] if prepared.document.lines else [])
        known = self._outbox.known(again=batch.again)
        taken = any(known.get(row) == TAKEN for row in rows) if known else False
        here = Attempt(files=files, rows=rows, over=prepared.over, again=batch.again, taken=taken)
        kept = await self._all(here) or self._waits(here, prepared)
        if kept is not None:
            return kept

        def work() -> dict[int, str]:
            named = {i: known[row] for i, row in enumerate(rows) if known.get(row, TAKEN) != TAKEN}
            return {**prepared.refused, **named}

        refused = await asyncio.to_thread(work)
        for reason in refused.values():
            self.stats.refused[reason] = self.stats.refused.get(reason, 0) + 1
        return Reject(refused=refused) if refused else Accept()

    async def _all(self, here: Attempt) -> Keep | Stop | None:
        """Send every file of a try; None = each row is known to be taken or refused, or waits."""
        while here.files:
            if here.sent >= FILES_MAX:
                return Keep(reason="many_files")
            kept = await self._one(here, here.files.popleft())
            if kept is not None:
                return kept
        return await self._suspected(here) if here.suspects else None

    def _waits(self, here: Attempt, prepared: Prepared) -> Keep | None:
        """Rows that are early keep the batch until they are due; the others of it have gone up and stay so."""
        now_ms = self._clock.now().utc_ms
        held, ours = list(here.early.values()), []
        for position, end_ms in prepared.early.items():
            known = self._early.get(prepared.rows[position])
            if known is not None:
                held.append(known[1])
            else:
                ours.append(end_ms)
        waiting = {"receiver_clock_behind": len(held), "ends_in_the_future": len(ours)}
        self.stats.waiting = {reason: count for reason, count in waiting.items() if count}
        if not held and not ours:
            return None
        wait_s = (min(held + ours) - now_ms) / 1000
        return Keep(
            reason="receiver_clock_behind" if held else "ends_in_the_future",
            after_s=min(max(wait_s, 1.0), EARLY_WAIT_MAX_S),
        )

    async def _one(self, here: Attempt, document: Document) -> Keep | Stop | None:
        """Send one file and draw the conclusion."""
        return await self._concluded(here, document, await self._deliver(here, document))

    async def _concluded(self, here: Attempt, document: Document, ended: Ended | Keep | Stop) -> Keep | Stop | None:
        """What the end of a file says about its rows, and what is to be sent because of it."""
        if isinstance(ended, Keep) and ended.whole:
            return here.halve(document, ended.reason)
        if not isinstance(ended, Ended):
            return ended
        if ended.taken:
            here.accepted()
            self._alone_refused = 0
            return None
        self.stats.jobs_failed += 1
        named = await self._named(here, document, ended)
        if named is None or isinstance(named, Keep | Stop):
            return named
        if not named:
            return await self._unexplained(here, document)
        if about_format(named, here.rows_of(document), taken=here.taken):
            return Stop(reason="format_refused", detail=", ".join(sorted(set(named.values()))))
        await self._judged(here, document, named)
        rest = await asyncio.to_thread(here.rest, document, named, self._outbox.known(again=here.again))
        if rest.lines:
            here.files.appendleft(rest)
        return None

    async def _named(self, here: Attempt, document: Document, ended: Ended) -> dict[int, str] | Keep | Stop | None:
        """The reason by row (from 0) of the rows that errors name; None = its rows go up again in other files."""
        told = told_lines(ended.errors)
        rows = len(document.lines)
        known = self._first_row_line
        if known is None and told and min(told) == 1 and told[1] not in ROW_REASONS:
            # the header, as far as we know; or the first row, which then fails alone and the others do not
            return self._about_header(here, document, told)
        if known is None and told and min(told) >= 1 and max(told) <= rows + 1:
            found = await self._numbering(here, document, told)
            if isinstance(found, Keep | Stop):
                return found
            known = found
        if known is None:
            return {}
        return await asyncio.to_thread(named_rows, told, known, here.rows_of(document))

    def _about_header(self, here: Attempt, document: Document, told: Mapping[int, str]) -> Stop | None:
        """The first row goes up alone, and the others without it; until it is clear that no file is understood."""
        if len(document.lines) > 1 and not here.taken and here.failed < ALONE_MAX and set(told) == {1}:
            here.failed += 1
            here.files.extendleft([document.part(1, len(document.lines)), document.part(0, 1)])
            return None
        return Stop(reason="format_refused", detail=told[1])

    async def _numbering(self, here: Attempt, document: Document, told: Mapping[int, str]) -> int | Keep | Stop | None:
        """The number of the line of a file's first row in its errors, None = not known. What is not confirmed is found
        out once: the first line named is one of two rows, and each of these goes up alone. A file of one row that fails
        for its line 2 has a header that counts; for its line 1, none. One that is taken proves nothing: its row may
        have become right meanwhile."""
        rows, line = len(document.lines), min(told)
        first: int | None = 2 if rows + 1 in told and rows == 1 else None
        for index in (line - 2, line - 1):
            if first is not None or not 0 <= index < rows:
                continue
            ended = await self._deliver(here, document.part(index, index + 1))
            if not isinstance(ended, Ended):
                return ended
            if ended.taken:
                here.taken = True
                continue
            lines = {error.line for error in ended.errors}
            if lines in ({1}, {2}):
                first = 2 if lines == {2} else 1
        if first is not None:
            log.info("the aggregator's line numbers are known", extra={"sink": self.name, "first_row_line": first})
            await asyncio.to_thread(self._outbox.learn, first)
        return first

    async def _judged(self, here: Attempt, document: Document, named: Mapping[int, str]) -> None:
        """Refuse the rows that the aggregator named, but those that it takes for future: they wait, unless it has taken
        later ones."""
        refused: dict[Row, str] = {}
        now_ms = self._clock.now().utc_ms
        newest = self._outbox.past.accepted
        for index, reason in named.items():
            row = here.rows[document.positions[index]]
            tries = self._early.get(row, (0, 0))[0] + 1
            if reason.upper() in FUTURE_CODES and tries <= EARLY_TRIES and (newest is None or row[0] > newest[0]):
                here.early[row] = now_ms + EARLY_WAIT_MS * 2 ** (tries - 1)
                self._early[row] = (tries, here.early[row])
            else:
                refused[row] = reason
        await self._refuse(here, refused)

    async def _refuse(self, here: Attempt, refused: Mapping[Row, str]) -> None:
        if refused:
            await asyncio.to_thread(self._outbox.refuse, refused, again=here.again)

    @property
    def _first_row_line(self) -> int | None:
        return self._confirmed.first_row_line or self._outbox.past.first_row_line

    async def _unexplained(self, here: Attempt, document: Document) -> Keep | Stop | None:
        """A file that FAILED and names no row of it."""
        here.failed += 1
        if here.hopeless:
            return NOTHING_TAKEN
        if not document.lines:
            return None
        if len(document.lines) > 1:
            return here.halve(document, UNEXPLAINED)
        if here.taken or here.sent > 1:
            here.suspects.append(document)
            return None
        return await self._alone_failed(here, here.rows[document.positions[0]])

    async def _suspected(self, here: Attempt) -> Keep | Stop | None:
        """Rows whose file of one failed go up once more, after everything else: a row is refused if it fails again
        although others were taken. Where nothing was taken since, or at all, nothing is believed."""
        if not here.taken or (len(here.suspects) > ALONE_MAX and not here.cleared):
            return NOTHING_TAKEN
        for document in here.suspects:
            ended = await self._deliver(here, document)
            if not isinstance(ended, Ended):
                return ended
            if not ended.taken:
                await self._refuse(here, {here.rows[document.positions[0]]: UNEXPLAINED})
        return None

    async def _alone_failed(self, here: Attempt, row: Row) -> Keep | Stop | None:
        """A batch of one row has nothing beside it that could be taken: only time can tell."""
        self._alone[row] = self._alone.get(row, 0) + 1
        if self._alone[row] < ALONE_MAX:
            return Keep(reason=UNEXPLAINED)
        if self._alone_refused >= ALONE_MAX:
            return NOTHING_TAKEN
        self._alone_refused += 1
        await self._refuse(here, {row: UNEXPLAINED})
        return None

    async def _deliver(self, here: Attempt, document: Document) -> Ended | Keep | Stop:
        """One file, from the outbox to its end."""
        here.sent += 1
        now_ms = self._clock.now().utc_ms
        others = tuple(self._outbox.past.jobs)

        def work() -> Outgoing:
            body = document.body()
            stamp = rfc3339(now_ms).translate({ord(c): None for c in "-:"})
            older = [here.rows[p] for position in document.positions for p in here.over.get(position, ())]
            file = Outgoing(
                name=f"{stamp}-{digest(body)}.csv", body=body, rows=here.rows_of(document), over=older,
                again=here.again, way=self.settings.transport, began_ms=now_ms, others=others,
            )  # fmt: skip
            self._outbox.begin(file)
            return file

        self.stats.uploads += 1
        return await self._followed(await asyncio.to_thread(work))

    async def _followed(self, file: Outgoing) -> Ended | Keep | Stop:
        ended = await self._transport.deliver(file, self._noted)
        at_ms = self._clock.now().utc_ms
        if isinstance(ended, Ended):
            status = COMPLETED if ended.taken else FAILED
            await asyncio.to_thread(self._outbox.end, file, status, taken=ended.taken, at_ms=at_ms)
        elif not file.tried and (isinstance(ended, Stop) or ended.whole):
            # nothing arrived, and the same file will not go up again
            await asyncio.to_thread(self._outbox.end, file, ended.reason, taken=False, at_ms=at_ms)
        return ended


def _api(given: LeapCsvSinkSettings) -> LeapApi | None:
    if given.url is None or given.token is None:
        return None
    return LeapApi(url=given.url, key=given.token.get_secret_value(), timeout_s=given.timeout_s)


def _transport(given: LeapCsvSinkSettings, api: LeapApi | None, clock: Clock) -> Transport:
    if given.sftp is not None:
        return SftpUpload(given.sftp, poll_s=given.poll_s, job_timeout_s=given.job_timeout_s, timeout_s=given.timeout_s)
    if api is None:
        raise InvariantBroken("settings without sftp have a url")
    return HttpUpload(
        api, schema=given.upload_schema, poll_s=given.poll_s, job_timeout_s=given.job_timeout_s, clock=clock
    )
