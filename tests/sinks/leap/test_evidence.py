"""What a failed file says of its rows."""

from collections.abc import Iterator

import pytest

from gateway.sinks.leap.evidence import UNKNOWN_METER, about_format, named_rows, told_lines
from gateway.sinks.leap.outbox import Row
from gateway.sinks.leap.replies import LineError


class Looked(list[Row]):
    """Rows, and how many of them were looked at."""

    looks = 0

    def __getitem__(self, index: object) -> Row:  # type: ignore[override]
        self.looks += 1
        return super().__getitem__(index)  # type: ignore[no-any-return, call-overload]

    def __iter__(self) -> Iterator[Row]:
        self.looks += len(self)
        return super().__iter__()


def rows(meters: int, each: int) -> Looked:
    return Looked((900_000 * i, f"home-{m}", 1, f"m{m}") for m in range(meters) for i in range(each))


def test_named_rows_of_an_unknown_meter_are_all_of_its_rows_and_no_others() -> None:
    assert named_rows({3: UNKNOWN_METER, 9: "gen_0003"}, 2, rows(3, 3)) == {
        0: UNKNOWN_METER, 1: UNKNOWN_METER, 2: UNKNOWN_METER, 7: "gen_0003",
    }  # fmt: skip


@pytest.mark.parametrize("first", [1, 2])
def test_named_rows_are_counted_from_the_line_of_the_first(first: int) -> None:
    assert named_rows({2: "gen_0003", 99: "gen_0003"}, first, rows(2, 2)) == {2 - first: "gen_0003"}


def test_named_rows_are_looked_at_a_few_times_however_many_meters_are_unknown() -> None:
    """A file of 50,000 rows of meters that are none of the account's must not keep the loop for minutes."""
    many = rows(500, 40)
    named = named_rows(dict.fromkeys(range(2, len(many) + 2), UNKNOWN_METER), 2, many)
    assert len(named) == len(many)
    assert many.looks <= 3 * len(many)


def test_told_lines_keep_the_first_reason_of_a_line() -> None:
    errors = [LineError(line=4, code="GEN_0003"), LineError(line=4, code="MTR_0003"), LineError(line=None, code="")]
    assert told_lines(errors) == {4: "gen_0003"}


@pytest.mark.parametrize(
    ("named", "taken", "expected"),
    [
        ({0: "stm_0002", 1: "stm_0002"}, False, True), ({0: "stm_0002", 1: "stm_0002"}, True, True),
        ({0: "stm_0002"}, False, False), ({0: "stm_0003", 1: "stm_0003"}, False, False),
        ({0: UNKNOWN_METER, 1: UNKNOWN_METER}, False, True), ({0: UNKNOWN_METER, 1: UNKNOWN_METER}, True, False),
    ],
)  # fmt: skip
def test_about_format_is_what_every_row_is_refused_for(named: dict[int, str], taken: bool, expected: bool) -> None:
    assert about_format(named, rows(2, 1), taken=taken) is expected
