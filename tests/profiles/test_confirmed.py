"""What others confirm of a profile, read from the file beside it."""

from pathlib import Path

import pytest

from gateway.domain.errors import InvalidInput
from gateway.profiles.confirmed import FILE, confirmation_of, load_confirmed


def test_quantity_is_confirmed_when_somebody_notices_every_mistake() -> None:
    found = confirmation_of({"sign": ["a", "b"], "scale": ["b"]})
    assert found.confirmed
    assert found.by == ("a", "b")


def test_quantity_with_an_unnoticed_mistake_is_unconfirmed() -> None:
    found = confirmation_of({"sign": ["a"], "scale": []})
    assert not found.confirmed
    assert found.unnoticed == ("scale",)
    assert not confirmation_of({}).confirmed


def test_profiles_without_the_file_are_confirmed_by_nobody(tmp_path: Path) -> None:
    assert load_confirmed(tmp_path) == {}


def test_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(InvalidInput, match=FILE):
        load_confirmed(tmp_path)
