"""Programs stand in one block; the former blocks are read with a warning, and contradict nothing in silence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.loader import load_settings
from gateway.domain.errors import InvalidInput
from gateway.services.settings import ProgramSettings, ceilings_w, interval_lengths

BEGIN = """\
state_dir: state
profiles_dir: profiles
devices: {mqtt: {broker: {url: "mqtt://127.0.0.1:1883", client_id: gateway}}}
"""
"""Three lines; what a test adds begins on line 4."""


def written(directory: Path, text: str) -> Path:
    path = directory / "gateway.yaml"
    path.write_text(BEGIN + text, encoding="utf-8")
    return path


def refused(directory: Path, text: str) -> list[str]:
    """Every fault, without the name of the file."""
    path = written(directory, text)
    with pytest.raises(InvalidInput) as caught:
        load_settings(path)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def test_programs_name_interval_length_tag_and_ceiling_in_one_block(tmp_path: Path) -> None:
    settings = load_settings(
        written(tmp_path, "programs: {peak: {tag: homes, interval_length_s: 15min, ceiling_mw: 20}, plain: {}}")
    )
    assert settings.former == ()
    assert settings.programs == {
        "peak": ProgramSettings(tag="homes", interval_length_s=900, ceiling_mw=20), "plain": ProgramSettings(),
    }  # fmt: skip
    assert ceilings_w(settings.programs) == {"peak": 20e6}


def test_programs_interval_length_goes_by_the_tag_and_the_tag_is_the_name_unless_another_is_given() -> None:
    programs = {
        "peak": ProgramSettings(interval_length_s=900),
        "night": ProgramSettings(tag="homes", interval_length_s=3600),
        "day": ProgramSettings(tag="homes", interval_length_s=300),
        "capped": ProgramSettings(ceiling_mw=1),
    }
    assert interval_lengths(programs) == {"peak": 900, "homes": 300}


def test_programs_in_the_former_blocks_are_read_with_a_warning_for_each_block(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "intervals: {grace_s: 20s, programs: {peak: {length_s: 15min}}}\n"
        "control: {programs: {peak: {ceiling_mw: 20}, noon: {ceiling_mw: 5}}}\n",
    )
    settings = load_settings(path)
    assert settings.programs == {
        "peak": ProgramSettings(interval_length_s=900, ceiling_mw=20), "noon": ProgramSettings(ceiling_mw=5),
    }  # fmt: skip
    assert settings.intervals.grace_s == 20
    assert settings.former == (
        f"{path}:4: intervals.programs: the next release knows this block only as programs, "
        "length_s as interval_length_s",
        f"{path}:5: control.programs: the next release knows this block only as programs",
    )


def test_programs_of_a_former_block_join_those_of_the_new_one(tmp_path: Path) -> None:
    settings = load_settings(
        written(tmp_path, "programs: {peak: {tag: homes}}\nintervals: {programs: {peak: {length_s: 60}}}")
    )
    assert settings.programs == {"peak": ProgramSettings(tag="homes", interval_length_s=60)}


def test_programs_that_say_the_same_in_both_places_are_read_with_a_warning(tmp_path: Path) -> None:
    settings = load_settings(
        written(
            tmp_path, "programs: {peak: {interval_length_s: 900}}\nintervals: {programs: {peak: {length_s: 15min}}}"
        )
    )
    assert settings.programs == {"peak": ProgramSettings(interval_length_s=900)}
    assert len(settings.former) == 1


def test_programs_that_contradict_each_other_are_refused_with_both_lines(tmp_path: Path) -> None:
    found = refused(
        tmp_path,
        "programs:\n  peak: {interval_length_s: 5min, ceiling_mw: 20}\n"
        "intervals:\n  programs:\n    peak: {length_s: 15min}\n"
        "control:\n  programs:\n    peak: {ceiling_mw: 30}\n",
    )
    assert found == [
        "8: intervals.programs.peak.length_s: it is 15min here and 5min on line 5 (programs.peak.interval_length_s); "
        "keep that one alone",
        "11: control.programs.peak.ceiling_mw: it is 30 here and 20 on line 5 (programs.peak.ceiling_mw); "
        "keep that one alone",
    ]


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ([], "control.programs: not a mapping of programs"),
        ({"peak": {}}, "control.programs.peak: not a mapping with a value"),
        ({"peak": 7}, "control.programs.peak: not a mapping with a value"),
        ({"peak": {"ceiling_mv": 1}}, "control.programs.peak.ceiling_mv: unknown key; here stands only ceiling_mw"),
        ({"peak": {"ceiling_mw": "much"}}, "control.programs.peak.ceiling_mw: Input should be a valid number"),
        ({"x" * 65: {"ceiling_mw": 1}}, f"control.programs.{'x' * 65}: String should have at most 64 characters"),
    ],
)
def test_programs_fault_in_a_former_block_has_the_place_that_the_file_gives(
    tmp_path: Path, block: Any, fault: str
) -> None:
    (found,) = refused(tmp_path, yaml.safe_dump({"control": {"programs": block}}))
    assert fault in found


def test_programs_block_that_is_none_is_refused_beside_a_former_one(tmp_path: Path) -> None:
    (found,) = refused(tmp_path, "programs: 7\ncontrol: {programs: {peak: {ceiling_mw: 1}}}")
    assert found.startswith("4: programs: Input should be a valid dictionary")


def test_the_folder_of_programs_is_relative_to_the_file_and_absent_without_one(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, "")).programs_dir is None
    assert load_settings(written(tmp_path, "programs_dir: rules\n")).programs_dir == tmp_path / "rules"
