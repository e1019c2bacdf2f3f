"""Walks the SunSpec model chain of a device: finds where its models lie, and which of several is meant.

Wire: "SunS" in two registers, then per model its id, its length L (without these two words) and L words; id 0xFFFF ends
the chain. Some products end it with an exception instead.
Source: SunSpec Device Information Model specification.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from gateway.domain.errors import PeerRefused
from gateway.links.modbus.blocks import ADDRESSES
from gateway.ports.links import FoundModel
from gateway.profiles.compiled.points import register_text
from gateway.profiles.language.base import ModelKey
from gateway.profiles.language.points import Point
from gateway.profiles.language.transport import COMMON_FROM, COMMON_WORDS, OneModel, SunSpec, SunSpecBlocks

MARKER = (0x5375, 0x6E53)
END_ID = 0xFFFF
NO_ID = 0
COMMON_ID = 1
HEADER = 2
# What a common block says, as (first word after COMMON_FROM, words).
PRODUCT, OPTION, SERIAL = (0, 16), (16, 8), (32, 16)

ReadWords = Callable[[int, int], Awaitable[tuple[int, ...]]]
"""Reads holding registers (address, count); raises PeerRefused where the device has none there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`address` of the id word and `length` without the header. `common`: address of the common block before it, None =
    there is none; `product`, `option` and `serial` are what that says of the part which the model belongs to, `option`
    None where it was not asked or did not answer. `blocks`: how many repeating blocks the model itself says it has,
    None likewise; `named` their numbers by the profile's names."""

    number: int
    address: int
    length: int
    common: int | None = None
    product: str = ""
    option: str | None = None
    serial: str = ""
    blocks: int | None = None
    named: Mapping[str, int] = field(default_factory=dict)


Chain = tuple[Model, ...]
"""Models in the order of the device."""
Models = Mapping[ModelKey, Model]
"""Models by what a profile calls them: the first of an id, and the one chosen for each name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitModels:
    """What one unit has: its chain, what the profile's words mean in it, and by name why some mean no model."""

    chain: Chain
    models: Models
    unclear: Mapping[str, str]


async def walk(read: ReadWords, section: SunSpec) -> Chain | None:
    """The models behind the first marker found; None = no marker anywhere. Raises what `read` raises, except where a
    refusal says that a base or the rest of the chain is not there."""
    for base in section.bases:
        try:
            found = await read(base, HEADER)
        except PeerRefused:
            continue
        if found == MARKER:
            chain = await _chain(read, base + HEADER, section.models_max)
            return await _introduced(read, await _counted(read, chain, section), section)
    return None


async def _chain(read: ReadWords, address: int, models_max: int) -> Chain:
    models: list[Model] = []
    common: int | None = None
    for _ in range(models_max):
        if address + HEADER > ADDRESSES:
            break
        try:
            number, length = await read(address, HEADER)
        except PeerRefused:
            break
        if number in (END_ID, NO_ID):
            break
        common = address if number == COMMON_ID else common
        models.append(Model(number=number, address=address, length=length, common=common))
        address += HEADER + length
    return tuple(models)


async def _counted(read: ReadWords, chain: Chain, section: SunSpec) -> Chain:
    """The chain, with the numbers of blocks that its models say, and which of them have which name."""
    repeating = {number: blocks for key, blocks in section.blocks.items() for number in section.ids(key)}
    found = []
    for model in chain:
        blocks = repeating.get(model.number)
        if blocks is None:
            found.append(model)
            continue
        said: int | None = None
        if blocks.count_at is not None:
            with suppress(PeerRefused):
                (said,) = await read(model.address + blocks.count_at, 1)
        found.append(replace(model, blocks=said, named=await _named(read, model, blocks)))
    return tuple(found)


async def _named(read: ReadWords, model: Model, blocks: SunSpecBlocks) -> dict[str, int]:
    """Numbers of the blocks that have a name of the profile; none where several have it."""
    names, count = blocks.names, block_count(model, blocks)
    if names is None or count not in blocks.counts:
        return {}
    texts = []
    for number in range(count):
        text = ""
        with suppress(PeerRefused):
            at = model.address + blocks.start + number * blocks.length + names.offset
            text = register_text(await read(at, names.words))
        texts.append(text)
    fitting = {
        name: [number for number, text in enumerate(texts, 1) if text.startswith(begin)]
        for name, begin in names.begins.items()
    }
    return {name: numbers[0] for name, numbers in fitting.items() if len(numbers) == 1}


async def _introduced(read: ReadWords, chain: Chain, section: SunSpec) -> Chain:
    """The chain, with what their common blocks say of the models among which one is chosen by that."""
    ids = {number for wanted in section.models.values() if wanted.options for number in wanted.ids}
    said: dict[int, tuple[str, str, str]] = {}
    for model in chain:
        if model.number in ids and model.common is not None and model.common not in said:
            try:
                words = await read(model.common + COMMON_FROM, COMMON_WORDS)
            except PeerRefused:
                continue
            product, option, serial = (register_text(words[at : at + count]) for at, count in (PRODUCT, OPTION, SERIAL))
            said[model.common] = (product, option, serial)
    return tuple(_told(model, said.get(model.common or 0)) if model.number in ids else model for model in chain)


def _told(model: Model, said: tuple[str, str, str] | None) -> Model:
    return model if said is None else replace(model, product=said[0], option=said[1], serial=said[2])


def models_of(chain: Chain, section: SunSpec, wanted: Mapping[str, str]) -> UnitModels:
    """What the profile's words for models mean in this chain. `wanted`: what is registered by name, a serial number or
    a place among the models of these ids (1 = the first)."""
    found: dict[ModelKey, Model] = {}
    unclear = {}
    for model in chain:
        found.setdefault(model.number, model)
    for name, spec in section.models.items():
        fitting = [model for model in chain if model.number in spec.ids]
        chosen = _chosen(fitting, spec, wanted.get(name, ""))
        if isinstance(chosen, Model):
            found[name] = chosen
        elif fitting:
            unclear[name] = chosen
    return UnitModels(chain=chain, models=found, unclear=unclear)


def _chosen(fitting: list[Model], spec: OneModel, wanted: str) -> Model | str:
    """One of the models that have the ids, or why it is none of them."""
    there = f"{len(fitting)} there"
    if wanted:
        numbered = fitting[int(wanted) - 1 : int(wanted)] if wanted.isdecimal() and int(wanted) > 0 else []
        named = [model for model in fitting if model.serial == wanted] or numbered
        return named[0] if named else f"{wanted!r} is registered, which is none of the {there}"
    if not spec.options:
        return fitting[spec.nth - 1] if len(fitting) >= spec.nth else f"the number {spec.nth} is asked for, {there}"
    for option in spec.options:
        same = [one for one in fitting if one.option is not None and _plain(one.option) == _plain(option)]
        if len(same) > 1:
            return f"{len(same)} say {option!r}; register which one"
        if same:
            return same[0]
    said = ", ".join("nothing" if model.option is None else repr(model.option) for model in fitting)
    return f"none says {' or '.join(map(repr, spec.options))} but {said}; register which one"


def _plain(option: str) -> str:
    return option.replace(" ", "").casefold()


def found_models(unit: UnitModels, used: Collection[ModelKey | None], section: SunSpec) -> dict[str, FoundModel]:
    """The models for `used` words of the profile, as others are told of them."""
    out = {}
    for key, model in unit.models.items():
        if key not in used:
            continue
        said = ""
        if key in section.models:
            alike = [one for one in unit.chain if one.number in section.models[str(key)].ids]
            texts = [f"{alike.index(model) + 1} of {len(alike)}", model.product, model.option]
            texts += [f"serial {model.serial}"] if model.serial else []
            said = f"model {model.number} at {model.address} ({', '.join(text for text in texts if text)})"
        out[str(key)] = FoundModel(number=model.number, length=model.length, blocks=model.named, said=said)
    return out


def other_product(chains: Collection[Chain], section: SunSpec) -> list[str]:
    """Why a device with these chains, one per unit, is not the product: missing models, and models whose length does
    not match a number of blocks that the product has. Empty = it may be."""
    found = {model.number for chain in chains for model in chain}
    lacking = [
        f"one of {', '.join(map(str, ids))}" if len(ids) > 1 else str(ids[0])
        for ids in map(section.ids, section.required)
        if found.isdisjoint(ids)
    ]
    wrong = [f"SunSpec models {', '.join(lacking)} are missing"] if lacking else []
    return wrong + [fault for chain in chains for fault in _other_blocks(chain, section)]


def _other_blocks(chain: Chain, section: SunSpec) -> list[str]:
    wrong = []
    models = models_of(chain, section, {}).models
    for number, blocks in section.blocks.items():
        model = models.get(number)
        if model is None:
            continue
        if block_count(model, blocks) not in blocks.counts:
            found = (HEADER + model.length - blocks.start) / blocks.length
            lengths = " or ".join(str(blocks.start + count * blocks.length - HEADER) for count in blocks.counts)
            wrong.append(
                f"SunSpec model {number} is {model.length} words long ({found:g} blocks), "
                f"expected {lengths} ({' or '.join(map(str, blocks.counts))} blocks)"
            )
        elif blocks.count_at is not None and model.blocks != block_count(model, blocks):
            said = "does not say how many" if model.blocks is None else f"says {model.blocks}"
            wrong.append(f"SunSpec model {number} has {block_count(model, blocks)} blocks by its length and {said}")
    return wrong


def block_count(model: Model, blocks: SunSpecBlocks) -> int | None:
    """How many blocks a model has; None where its length is not that of whole ones."""
    count, rest = divmod(HEADER + model.length - blocks.start, blocks.length)
    return count if count >= 0 and not rest else None


def address_of(point: Point, models: Models, section: SunSpec) -> int | None:
    """The register of a point of a model; None where the device does not have it. In a repeating block the offset
    counts from the block's first register."""
    model = models.get(point.model or 0)
    if model is None or point.offset is None:
        return None
    offset = point.offset
    if point.block is not None:
        blocks = section.blocks.get(point.model or 0)
        if blocks is None or offset + point.register_count > blocks.length:
            return None
        count, block = block_count(model, blocks) or 0, point.block
        number = model.named.get(block, 0) if isinstance(block, str) else block if block > 0 else count + 1 + block
        if not 1 <= number <= count:
            return None
        offset += blocks.start + (number - 1) * blocks.length
    if offset + point.register_count > HEADER + model.length:
        return None
    return model.address + offset
