"""What a profile sends for a power is what others published that they sent to the real product."""

from pathlib import Path

import pytest

from gateway.profiles.loader import load_profiles
from tests.foreign.commands import FILES, PublishedCommand, command_of, contradicts, sent

ROOT = Path(__file__).parents[2]
PRODUCTS = {name: codec.document for name, codec in load_profiles(ROOT / "device_profiles").items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_profile_sends_what_was_published(path: Path) -> None:
    published = command_of(path)
    assert not contradicts(PRODUCTS[path.parent.name], published), sent(PRODUCTS[path.parent.name], published.power_w)


@pytest.mark.parametrize("writes", [{"40236": 2290}, {"40793": -2_500}, {"40794": 2_500}, {"40793": 250}], ids=str)
def test_published_command_with_another_value_or_place_contradicts(writes: dict[str, int]) -> None:
    published = PublishedCommand.model_validate(
        {"source": "made up for tests", "kind": "said", "power_w": -2_500, "writes": writes}
    )
    assert contradicts(PRODUCTS["sma-sbs"], published)
