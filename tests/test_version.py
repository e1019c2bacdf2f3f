"""The release stands in one place, and everything that tells it tells the same."""

import re
import tomllib
from pathlib import Path

from gateway import __version__

ROOT = Path(__file__).parents[1]


def test_version_of_the_package_is_that_of_the_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "gateway.__version__"}
    assert "version" in project["project"]["dynamic"]


def test_version_is_newer_than_every_release_whose_state_is_kept() -> None:
    kept = [path.name for path in (ROOT / "tests" / "releases").iterdir() if re.fullmatch(r"\d+\.\d+", path.name)]
    assert kept
    assert all(_numbers(release) < _numbers(__version__)[:2] for release in kept)


def test_version_is_the_newest_section_of_the_changes() -> None:
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == __version__
    assert [_numbers(section) for section in sections] == sorted(map(_numbers, sections), reverse=True)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
