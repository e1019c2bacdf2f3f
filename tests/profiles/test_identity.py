"""Whose identity each profile takes: the models it was written for, and none that only resembles them."""

from pathlib import Path

import pytest

from gateway.profiles.loader import load_profiles
from gateway.profiles.point_codec import Value
from gateway.profiles.program import Program

ROOT = Path(__file__).parents[2]
PROGRAMS: dict[str, Program] = {
    name: codec.product.base
    for name, codec in load_profiles(ROOT / "device_profiles").items()
    if codec.product is not None
}
# What a device of each product says where nothing else is told.
SAYS: dict[str, dict[str, Value]] = {"foxess-h3": {"model": "H3-10.0-E"}}


def refused(profile: str, **said: Value) -> list[str]:
    """Why a device that says this is not the product, none where it is."""
    return PROGRAMS[profile].not_this_product(SAYS.get(profile, {}) | said)


@pytest.mark.parametrize("model", ["H3-5.0-E", "H3-6.0-E", "H3-8.0-E", "H3-9.9-E", "H3-10.0-E", "H3-12.0-E"])
def test_identity_foxess_h3_of_every_size_is_the_product(model: str) -> None:
    assert refused("foxess-h3", model=model) == []


@pytest.mark.parametrize(
    "model",
    ["H1-5.0-E", "H1-5.0-E-G2", "H3-12.0-SMART", "H3-10.0-Smart", "H3-12.0-M", "H3-Pro-20.0", "H3", "H3-10.0-E-G2"],
)
def test_identity_foxess_model_with_another_register_map_is_refused_with_what_it_said(model: str) -> None:
    """H1, H3-Smart, H3-Pro and -M keep battery, SoC and setpoint at other addresses."""
    (why,) = refused("foxess-h3", model=model)
    assert why == (
        f"model is {model!r}, expected one of 'H3-5.0-E', 'H3-6.0-E', 'H3-8.0-E', 'H3-9.9-E', 'H3-10.0-E', 'H3-12.0-E'"
    )
