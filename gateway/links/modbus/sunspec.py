"""Walks the SunSpec model chain of a device: finds where its models lie.

Wire: "SunS" in two registers, then per model its id, its length L (without these two words) and L words; id 0xFFFF ends
the chain. Some products end it with an exception instead.
Source: SunSpec Device Information Model specification.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from gateway.domain.errors import PeerRefused
from gateway.links.modbus.blocks import ADDRESSES
from gateway.profiles.language.points import Point
from gateway.profiles.language.transport import SunSpec

MARKER = (0x5375, 0x6E53)
END_ID = 0xFFFF
NO_ID = 0
HEADER = 2

ReadWords = Callable[[int, int], Awaitable[tuple[int, ...]]]
"""Reads holding registers (address, count); raises PeerRefused where the device has none there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`address` of the id word and `length` without the header."""

    address: int
    length: int


Chain = Mapping[int, Model]


async def walk(read: ReadWords, section: SunSpec) -> Chain | None:
    """The models behind the first marker found, by id (of several of one id the first); None = no marker anywhere.
    Raises what `read` raises, except where a refusal says that a base or the rest of the chain is not there."""
    for base in section.bases:
        try:
            found = await read(base, HEADER)
        except PeerRefused:
            continue
        if found == MARKER:
            return await _chain(read, base + HEADER, section.models_max)
    return None


async def _chain(read: ReadWords, address: int, models_max: int) -> Chain:
    models: dict[int, Model] = {}
    for _ in range(models_max):
        if address + HEADER > ADDRESSES:
            break
        try:
            number, length = await read(address, HEADER)
        except PeerRefused:
            break
        if number in (END_ID, NO_ID):
            break
        models.setdefault(number, Model(address=address, length=length))
        address += HEADER + length
    return models


def other_product(chains: Collection[Chain], section: SunSpec) -> list[str]:
    """Why a device with these chains, one per unit, is not the product: missing models, and models whose length does
    not match the product's number of blocks. Empty = it may be."""
    found = {number for chain in chains for number in chain}
    lacking = [str(number) for number in section.required if number not in found]
    wrong = [f"SunSpec models {', '.join(lacking)} are missing"] if lacking else []
    return wrong + [fault for chain in chains for fault in _other_blocks(chain, section)]


def _other_blocks(chain: Chain, section: SunSpec) -> list[str]:
    wrong = []
    for number, blocks in section.blocks.items():
        model = chain.get(number)
        expected = blocks.start + blocks.count * blocks.length - HEADER
        if model is not None and model.length != expected:
            found = (HEADER + model.length - blocks.start) / blocks.length
            wrong.append(
                f"SunSpec model {number} is {model.length} words long ({found:g} blocks), "
                f"expected {expected} ({blocks.count} blocks)"
            )
    return wrong


def address_of(point: Point, chain: Chain, section: SunSpec) -> int | None:
    """The register of a point of a model; None where the device's chain does not reach that far. In a repeating block
    the offset counts from the block's first register."""
    model = chain.get(point.model or 0)
    if model is None or point.offset is None:
        return None
    offset = point.offset
    if point.block is not None:
        blocks = section.blocks.get(point.model or 0)
        if blocks is None or offset + point.register_count > blocks.length:
            return None
        offset += blocks.start + (point.block - 1) * blocks.length
    if offset + point.register_count > HEADER + model.length:
        return None
    return model.address + offset
