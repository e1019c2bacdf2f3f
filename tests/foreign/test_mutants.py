"""The mistakes that are tried: which there are for a profile, and what they do to it and to the wire."""

import struct
from pathlib import Path

import pytest

from gateway.profiles.language.base import Sign
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.loader import load_profiles
from simulators.faces.modbus import ModbusRefused, Refusal
from simulators.faces.plant import Trouble
from tests.foreign.mutants import CONTROL, Mutant, in_profile, mutants
from tests.foreign.wire import Mistaken, places_of

ROOT = Path(__file__).parents[2]
PRODUCTS = {name: codec.document for name, codec in load_profiles(ROOT / "device_profiles").items()}
HUAWEI = PRODUCTS["huawei-luna2000"]


class Words:
    """A product of plain words, of which 37765 (i32) is the battery's power and 47100 the forced command."""

    trouble, late_s = Trouble.NONE, 0.0

    def __init__(self) -> None:
        self.words = dict.fromkeys((*range(37760, 37770), *range(47100, 47102)), 0) | {37765: 0, 37766: 1_000}

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        if any(at not in self.words for at in range(address, address + count)):
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        return [self.words[at] for at in range(address, address + count)]

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        self.words |= dict(enumerate(values, start=address))


def named(document: ProfileDocument, quantity: str, name: str) -> Mutant:
    (found,) = [mutant for mutant in mutants(document, quantity) if mutant.name == name]
    return found


async def made(name: str, quantity: str = "battery_w") -> tuple[Words, Mistaken]:
    words, mutant = Words(), named(HUAWEI, quantity, name)
    return words, Mistaken(words, mutant, await places_of(HUAWEI, words, mutant.points))


def number(words: list[int]) -> int:
    return int(struct.unpack(">i", struct.pack(">HH", *words))[0])


def test_mutants_every_kind_of_every_point() -> None:
    assert [mutant.name for mutant in mutants(PRODUCTS["victron-gx-modbus"], "grid_w")] == [
        *("sign", "scale", "address of grid_l1", "address of grid_l2", "address of grid_l3")
    ]
    assert "word order" in [mutant.name for mutant in mutants(HUAWEI, "battery_w")]
    assert [mutant.name for mutant in mutants(HUAWEI, "soc_pct")] == ["scale", "address of soc"]
    assert mutants(PRODUCTS["sunspec-der"], "grid_w") == ()
    assert mutants(PRODUCTS["sonnen-v1"], CONTROL) == ()


def test_mutants_of_control_are_of_power_and_of_direction() -> None:
    found = {mutant.name: mutant.values for mutant in mutants(PRODUCTS["sungrow-sh"], CONTROL)}
    assert found.keys() == {
        *("sign of forced_command", "address of forced_command", "scale of forced_power", "address of forced_power")
    }
    assert found["sign of forced_command"] == (0xBB, 0xAA)


def test_in_profile_the_mistake_is_in_what_is_read() -> None:
    assert in_profile(HUAWEI, named(HUAWEI, "battery_w", "sign")).readings["battery_w"].sign is Sign.DISCHARGE_POSITIVE
    point = in_profile(HUAWEI, named(HUAWEI, "battery_w", "scale")).points["battery_power"]
    assert point.scale == 10 * HUAWEI.points["battery_power"].scale
    point = in_profile(HUAWEI, named(HUAWEI, "battery_w", "word order")).points["battery_power"]
    assert point.word_order == "little"
    point = in_profile(HUAWEI, named(HUAWEI, "battery_w", "address of battery_power")).points["battery_power"]
    assert point.address == 37767


@pytest.mark.parametrize(
    ("name", "shown"), [("sign", -1_000), ("scale", 100), ("word order", 1_000 << 16), ("address of battery_power", 0)]
)
async def test_mistaken_product_shows_the_mistake(name: str, shown: int) -> None:
    _, product = await made(name)
    assert number(product.read(1, 3, 37765, 2)) == shown
    assert product.read(1, 3, 37760, 3) == [0, 0, 0]
    assert product.read(2, 3, 37765, 2) == [0, 1_000]  # of another unit
    assert product.broken == []


async def test_mistaken_product_shows_a_moved_value_beside_its_place() -> None:
    _, product = await made("address of battery_power")
    assert number(product.read(1, 3, 37767, 2)) == 1_000


async def test_mistaken_product_takes_one_direction_for_the_other() -> None:
    words, product = await made("sign of forced_command", CONTROL)
    for written, taken in ((1, 2), (2, 1), (0, 0)):
        product.write(1, 6, 47100, [written])
        assert words.words[47100] == taken
        assert product.read(1, 3, 47100, 1) == [written]


async def test_mistaken_product_has_nothing_to_write_where_its_register_was() -> None:
    words, product = await made("address of forced_command", CONTROL)
    with pytest.raises(ModbusRefused):
        product.write(1, 6, 47100, [2])
    product.write(1, 6, 47101, [2])
    assert words.words[47100] == 2


async def test_mistaken_product_without_a_mistake_is_as_it_was() -> None:
    words = Words()
    product = Mistaken(words)
    product.write(1, 16, 47100, [1, 2])
    assert product.read(1, 3, 47100, 2) == [1, 2]
    assert number(product.read(1, 3, 37765, 2)) == 1_000


async def test_mistake_in_what_a_product_lacks_changes_nothing() -> None:
    words, mutant = Words(), named(HUAWEI, "grid_w", "sign")
    product = Mistaken(words, mutant, await places_of(HUAWEI, words, mutant.points))
    assert number(product.read(1, 3, 37765, 2)) == 1_000
    with pytest.raises(ModbusRefused):
        product.read(1, 3, 37113, 2)
    assert product.broken == []
