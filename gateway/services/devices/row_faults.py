"""What is wrong with rows of an import: every fault of a row, with its column and value."""

from dataclasses import dataclass

FAULTS_MAX = 32
"""Of one row are named; the rest are counted."""

VALUE_SHOWN, COLUMN_SHOWN = 40, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFault:
    """One fault of a row. `column` "" = the row as a whole; `value` is what stands there, None where that may be a
    secret or nothing stands there."""

    column: str
    problem: str
    value: str | None = None

    def __str__(self) -> str:
        text = f"{self.column}: {self.problem}" if self.column else self.problem
        return text if self.value is None else f"{text} (found {self.value!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that was not imported: its line in the input (1 = first) and every fault of it."""

    line: int
    faults: tuple[RowFault, ...]

    @property
    def problem(self) -> str:
        """All faults in one text."""
        return "; ".join(map(str, self.faults))


def bounded(faults: list[RowFault], most: int = FAULTS_MAX) -> tuple[RowFault, ...]:
    """At most so many faults, and after them how many more there are."""
    if len(faults) <= most:
        return tuple(faults)
    return *faults[:most], RowFault(column="", problem=f"and {len(faults) - most} more")
