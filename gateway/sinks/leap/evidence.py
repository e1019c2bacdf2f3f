"""What a file that FAILED says of its rows, and which files a try of a batch has yet to send.

A row is refused only on evidence against this row. The functions are pure and go through a file's rows once, whatever
it says of how many.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.ports.sinks import Stop
from gateway.sinks.leap.outbox import Row
from gateway.sinks.leap.replies import LineError
from gateway.sinks.leap.rows import Document

FAILED_MAX = 8
"""So many files in a row may fail for no row, beyond those that it takes to find one, until nothing is believed."""
ROW_REASONS = frozenset({"mtr_0003", "stm_0003", "etm_0003"})
"""What a single row may be refused for although our own check let it pass. Any other, said of the header or of every
line of a file, is about what we write and not about a row."""
UNKNOWN_METER = "mtr_0003"
UNEXPLAINED = "job_failed"
NOTHING_TAKEN = Stop(reason=UNEXPLAINED, detail="every file fails, and no row is named")


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One try of a batch: files that are to go up (`rows` by position), older revisions that a row replaces, whether
    somebody has `again` asked for them; how many files went, whether one was taken (now or before), how many have
    failed for no row since; rows whose file of one failed so, and whether one was taken after the first of them; until
    when rows wait (UTC ms)."""

    files: deque[Document]
    rows: Sequence[Row]
    over: Mapping[int, Sequence[int]] = field(default_factory=dict)
    again: bool = False
    taken: bool = False
    sent: int = 0
    failed: int = 0
    suspects: list[Document] = field(default_factory=list)
    cleared: bool = False
    early: dict[Row, int] = field(default_factory=dict)

    @property
    def hopeless(self) -> bool:
        """Whether so many files have failed for no row that nothing is believed."""
        return self.failed > len(self.rows).bit_length() + FAILED_MAX and not (self.taken and self.cleared)

    def rows_of(self, document: Document) -> list[Row]:
        return [self.rows[position] for position in document.positions]

    def accepted(self) -> None:
        """A file was taken."""
        self.taken, self.failed = True, 0
        self.cleared = self.cleared or bool(self.suspects)

    def halve(self, document: Document, reason: str) -> Stop | None:
        """The file goes up in two."""
        half = len(document.lines) // 2
        if not half:
            return Stop(reason=reason, detail="a file of one row is too large")
        self.files.extendleft([document.part(half, len(document.lines)), document.part(0, half)])
        return None

    def rest(self, document: Document, named: Collection[int], known: Collection[Row]) -> Document:
        """The file without the rows (from 0) that were named, that wait, or that went up alone already."""
        rows = self.rows_of(document)
        return document.without(
            {document.positions[i] for i, row in enumerate(rows) if i in named or row in known or row in self.early}
        )


def told_lines(errors: Iterable[LineError]) -> dict[int, str]:
    """The first reason by line, as the aggregator counts lines."""
    told: dict[int, str] = {}
    for error in errors:
        if error.line is not None:
            told.setdefault(error.line, error.reason)
    return told


def named_rows(told: Mapping[int, str], first: int, rows: Sequence[Row]) -> dict[int, str]:
    """The reason by row (from 0) of `rows`, whose first has line `first`. A meter that is not known for one row is not
    known for its others either."""
    named = {line - first: reason for line, reason in told.items() if 0 <= line - first < len(rows)}
    unknown = {rows[i][3] for i, reason in named.items() if reason == UNKNOWN_METER}
    if unknown:
        for i, row in enumerate(rows):
            if row[3] in unknown:
                named.setdefault(i, UNKNOWN_METER)
    return named


def about_format(named: Mapping[int, str], rows: Sequence[Row], *, taken: bool) -> bool:
    """Whether a refusal of every row is about what we write, or about the whole account; `taken`: others were."""
    if len(named) < len(rows) or len(named) < 2:
        return False
    reasons = set(named.values())
    if not reasons & ROW_REASONS:
        return True
    return reasons == {UNKNOWN_METER} and not taken and len({row[3] for row in rows}) > 1
