"""`gateway programs`: what is shipped, what is wrong with a file, and the rules of a day; no daemon is asked."""

import json
import re
from pathlib import Path

import yaml

from gateway.programs.loader import load_programs, parse_program
from gateway.programs.summary import plain
from tests.builders.programs import SAMPLE, SECOND
from tests.cli.test_cli import config, run

PROGRAMS = Path(__file__).parents[2] / "config" / "programs"


def written(directory: Path, text: str = SAMPLE + SECOND) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "sample.yaml").write_text(text, encoding="utf-8")
    return str(directory)


def test_list_names_what_is_shipped_and_how_much_of_it_is_not_verified() -> None:
    listed = json.loads(run("programs", "list", "--dir", str(PROGRAMS), "--json").output)
    assert {row["program"] for row in listed} == {path.stem for path in PROGRAMS.glob("*.yaml")}
    by_name = {row["program"]: row for row in listed}
    assert by_name["dsgs-option3"]["versions"] == [
        "2025: 2025-05-01 until 2025-11-01",
        "2026: 2026-05-01 until 2026-11-01",
    ]
    assert by_name["ma-clean-peak"]["pricing"] == "none"
    assert by_name["ma-clean-peak"]["unverified"] > 0
    assert "2026-04-01 until further notice" in run("programs", "list", "--dir", str(PROGRAMS)).output


def test_check_takes_files_and_folders_and_tells_both_good_and_bad(tmp_path: Path) -> None:
    good = written(tmp_path / "good")
    bad = written(tmp_path / "bad", SAMPLE.replace("utilities: [South]", "utilities: [West]"))
    result = run("programs", "check", good, f"{PROGRAMS}", str(PROGRAMS / "ct-ess.yaml"))
    assert result.exit_code == 0
    assert "sample: valid, 2 versions" in result.output
    assert result.output.count("ct-ess: valid") == 2
    result = run("programs", "check", good, bad, str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert re.search(r"sample\.yaml:[0-9]+: versions\.0\.rates\.1\.utilities\.0: 'West' is not among", result.output)
    assert "none.yaml:1: (document): cannot be read" in result.output
    told = json.loads(run("programs", "check", good, bad, "--json").output)
    assert (len(told["good"]), len(told["problems"])) == (1, 1)


def test_show_tells_the_rules_in_force_on_a_day_with_their_evidence(tmp_path: Path) -> None:
    directory = written(tmp_path)
    first = run("programs", "show", "sample", "--on", "2025-12-31", "--dir", directory)
    assert (first.exit_code, "one: 2025-01-01 until 2026-01-01" in first.output) == (0, True)
    assert re.search(r"rules\.window +from: 16:00, until: 21:00 +refuse +verified +page", first.output)
    assert re.search(r"rates\.north .*amount: 8\.775, currency: USD", first.output)
    second = json.loads(run("programs", "show", "sample", "--on", "2026-01-01", "--dir", directory, "--json").output)
    assert [version["version"] for version in second["versions"]] == ["two"]
    whole = run("programs", "show", "sample", "--dir", directory).output
    assert ("one: 2025" in whole, "two: 2026" in whole) == (True, True)


def test_show_fails_for_a_day_without_rules_and_for_what_is_no_program_or_day(tmp_path: Path) -> None:
    directory = written(tmp_path)
    by_args = {("sample", "--on", "2024-12-31"): 1, ("other",): 2, ("sample", "--on", "tomorrow"): 2}
    for args, code in by_args.items():
        result = run("programs", "show", *args, "--dir", directory)
        assert (result.exit_code, bool(result.output)) == (code, True)


def test_what_show_prints_as_json_is_a_program_again() -> None:
    for name, loaded in load_programs(PROGRAMS).items():
        shown = run("programs", "show", name, "--dir", str(PROGRAMS), "--json")
        again = yaml.safe_dump(json.loads(shown.output), sort_keys=False)
        assert plain(parse_program(again, name=name)) == plain(loaded.document)


def test_validate_tells_the_faults_of_programs_that_a_configuration_names(tmp_path: Path) -> None:
    good = written(tmp_path / "good")
    bad = written(tmp_path / "bad", SAMPLE.replace("utilities: [South]", "utilities: [West]"))
    for directory, code in ((good, 0), (bad, 2), (str(tmp_path / "none"), 2)):
        result = run("validate", "--config", config(tmp_path, programs_dir=directory))
        assert (result.exit_code, "sample.yaml:" in result.output) == (code, directory == bad)


def test_validate_refuses_what_contradicts_a_programs_file_and_warns_about_what_only_repeats_it(tmp_path: Path) -> None:
    directory = written(tmp_path / "good")
    zone = parse_program(SAMPLE, name="sample").zone
    same = run(
        "validate", "--config", config(tmp_path, programs_dir=directory, programs={"sample": {"time_zone": zone}})
    )
    assert (same.exit_code, "programs.sample.time_zone: the next release reads it" in same.output) == (0, True)
    other = {"sample": {"time_zone": "Australia/Sydney"}}
    result = run("validate", "--config", config(tmp_path, programs_dir=directory, programs=other))
    assert (result.exit_code, "programs.sample.time_zone: Australia/Sydney" in result.output) == (2, True)
