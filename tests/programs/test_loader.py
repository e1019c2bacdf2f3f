"""Reading programs from files: every fault is told with file, line and path, and all of a folder at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.programs.loader import load_program, load_programs, parse_program
from tests.builders.programs import SAMPLE, SECOND, changed


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse_program(text, name="p.yaml")
    return caught.value.problems


def line_of(words: str, text: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if words in line)


def test_a_program_without_faults_is_read_with_all_its_versions() -> None:
    assert [version.version for version in parse_program(SAMPLE + SECOND, name="p.yaml").versions] == ["one", "two"]


def test_every_fault_of_the_schema_is_told_with_line_and_path() -> None:
    text = changed("pricing: rates", "pricing: rates\nsurplus: 1")
    text = changed('until: "21:00"', 'until: "25:00"', text=text)
    text = changed("from: 05-01, to: 10-31", "from: 02-30, to: 10-31", text=text)
    clock = 'a time of day is written "16:00", from "00:00" to "24:00"'
    assert faults(text) == [
        f"p.yaml:{line_of('season:', text)}: versions.0.rules.season.value.0.from: no year has a 02-30",
        f"p.yaml:{line_of('window:', text)}: versions.0.rules.window.value.0.until: {clock}",
        f"p.yaml:{line_of('surplus', text)}: surplus: Extra inputs are not permitted",
    ]


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ("America/Los_Angeles", "America/Nowhere", "zone", "no time zone has the name 'America/Nowhere'"),
        ("    from: 2025-01-01\n    until", "    from: 20250101\n    until", "versions.0.from",
         "a date is written 2026-05-01"),
        ("{hours: 2}", "{hours: 2, by: \"17:00\"}", "versions.0.rules.notice.value",
         "either hours, or days_before and by"),
        ("{min: 1, max: 4}", "{min: 5, max: 4}", "versions.0.rules.length_h.value", "min: more than max"),
        ("{max: 35, per: season}", "{max: 35, per: year}", "versions.0.rules.events.value.per",
         "Input should be 'day', 'month' or 'season'"),
        ("max: 4}, effect: clip", "max: 4}", "versions.0.rules.length_h.effect", "Field required"),
        ("value: 90, evidence: verified", "value: 90, evidence: sure",
         "versions.0.measurement.coverage_min_pct.evidence",
         "Input should be 'verified', 'reported', 'inferred' or 'unverified'"),
        ("{kw: 0, level", "{kw: 0, of: nomination, level", "versions.0.performance.floor.value", "either kw or of"),
        ("language: 1", "language: 2", "language", "Input should be 1"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_told_with_its_path(old: str, new: str, path: str, words: str) -> None:
    (found,) = faults(changed(old, new))
    assert found.split(": ", 2)[1:] == [path, words]


def test_a_file_is_named_after_its_program(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(SAMPLE, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"other.yaml:2: program: says 'sample', the file is named 'other'"):
        load_program(path)


def test_the_faults_of_all_files_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "sample.yaml").write_text(SAMPLE, encoding="utf-8")
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff")
    (tmp_path / "broken.yaml").write_text("language: [", encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        load_programs(tmp_path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["binary.yaml", "broken.yaml"]
    with pytest.raises(InvalidInput, match=r"no programs \(\*\.yaml\) here"):
        load_programs(tmp_path / "none")


def test_a_peer_calls_one_program_by_one_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        text = changed("program: sample", f"program: {name}")
        (tmp_path / f"{name}.yaml").write_text(text + "peer_ids: {leap: [CCA]}\n", encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        load_programs(tmp_path)
    last = len(SAMPLE.splitlines()) + 1
    assert caught.value.problems == [f"two.yaml:{last}: peer_ids.leap.0: 'CCA' is one already"]


def test_a_program_file_has_a_digest_of_its_text(tmp_path: Path) -> None:
    path = tmp_path / "sample.yaml"
    digests = set()
    for text in (SAMPLE, SAMPLE + SECOND, SAMPLE):
        path.write_text(text, encoding="utf-8")
        digests.add(load_program(path).digest)
    assert len(digests) == 2


@given(
    st.integers(0, len(SAMPLE.splitlines()) - 1), st.sampled_from(["", "      - x: {", "    x: &a [*a]", "versions: 1"])
)
def test_a_file_with_any_line_replaced_is_read_or_refused_with_a_line(number: int, line: str) -> None:
    lines = SAMPLE.splitlines()
    lines[number] = line
    problems: list[str] = []
    try:
        parse_program("\n".join(lines), name="p.yaml")
    except InvalidInput as error:
        problems = list(error.problems)
    assert all(problem.split(":")[1].isdecimal() for problem in problems)
