"""Writes down what one device said, as a vector: raw values, and what its profile makes of them.

Only what points of the profile read is written. A text stays as it is only where the profile tests or maps it; every
other text, and whatever is named as a serial number, keeps its length and loses its letters and digits. What is masked
is masked before it is decoded, so that the vector is true to itself.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from gateway.domain.types import DeviceId
from gateway.links.json_values import tokens_of
from gateway.links.modbus.sunspec import Model, address_of
from gateway.links.mqtt.cache import levels_of, topic_of
from gateway.ports.links import FoundModel
from gateway.profiles.compile import Codec
from gateway.profiles.compiled.points import Marker, Raw, Unreadable, Value, Values
from gateway.profiles.compiled.readings import holds
from gateway.profiles.compiled.variant import ProductVariant
from gateway.profiles.language.points import CHOICE, Point, PointType
from gateway.services.devices.probe import Probe, named_readings

Json = object
Run = tuple[int, list[int]]
Raws = Mapping[str, Raw]
Levels = Mapping[str, str]
Found = Mapping[str, FoundModel]

PRIVATE_NAME = re.compile(r"(^|_)(serial|sn|din|mac|imei|iccid|uuid|portal|token|password|secret|pin|user|ssid)(_|$)")
MAC = re.compile(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
KNOWN_LENGTH = 5
"""A text that is as long and known to be private is masked wherever it stands; a shorter one would be found by
chance."""

NOBODY = DeviceId("probe")
"""Who is asked where the device has no name."""

LIST_MAX = 64
"""Elements of a list that is written out."""

CHECK = "Points and readings are what the profile makes of it: compare them with the product's own display."


def captured(
    codec: Codec, found: Probe, *, units: Mapping[str, int], parameters: Mapping[str, str], secret: str, source: str
) -> dict[str, dict[str, Any]]:
    """The vectors of what a device said, in the form of tests/vectors, by the form of their raw values: registers,
    sunspec (a product may have both), http or mqtt. `units` and `parameters` are those it was asked with, `secret`
    what it was asked with and must not say."""
    variant = next(one for one in codec.product.variants if one.variant == found.variant) if codec.product else None
    if variant is None:
        return {}
    document = variant.document
    said = {
        point.name: point.raw
        for point in found.points
        if not isinstance(point.raw, Unreadable | None) and point.raw not in (Marker.MISSING, Marker.GARBLED)
    }
    mask = _Mask(variant, said, private=(secret, *parameters.values()))
    raws = {name: mask.masked(name, raw) for name, raw in said.items()}
    levels = levels_of(document, NOBODY, parameters) if document.mqtt is not None else {}
    levels = {name: mask.level(level) for name, level in levels.items()}
    asked = document.modbus.units | dict(units) if document.modbus is not None else {}
    forms: dict[str, dict[str, Raw]] = {}
    for name, raw in raws.items():
        forms.setdefault(_form(variant.points[name]), {})[name] = raw
    vectors: dict[str, dict[str, Any]] = {}
    for form, part in forms.items():
        used = {variant.points[name].unit_id for name in part}
        about: dict[str, object] = {
            "source": source, "kind": "capture", "note": _note(mask.names & part.keys()), "variant": variant.variant,
            "units": {name: unit for name, unit in asked.items() if name in used}, "levels": levels,
            "raw": {form: _SAMPLES[form](variant, part, asked, levels, found.models)},
        }  # fmt: skip
        vectors[form] = {name: value for name, value in about.items() if value} | _meaning(variant, part)
    return vectors


def _note(masked: set[str]) -> str:
    return CHECK + (f" Masked: {', '.join(sorted(masked))}." if masked else "")


def _form(point: Point) -> str:
    if point.topic is not None:
        return "mqtt"
    if point.path is not None:
        return "http"
    return "sunspec" if point.model is not None else "registers"


def _meaning(variant: ProductVariant, raws: Mapping[str, Raw]) -> dict[str, object]:
    """What the profile makes of raw values: what a vector expects."""
    values = Values()
    variant.decode(raws, values)
    readings = named_readings(variant, values)
    return {
        "identity": _held(variant, values),
        "points": {name: _plain(values.get(name)) for name in raws},
        "readings": {name: _plain(value) for name, value in readings.items() if value not in (None, "unclear")},
    }


class _Mask:
    """Makes raw values of one device anonymous. `names`: the points of which something was masked."""

    def __init__(self, variant: ProductVariant, said: Mapping[str, Raw], *, private: tuple[str, ...]) -> None:
        self.names: set[str] = set()
        identity, control = variant.document.identity, variant.control
        serial = identity.serial if identity is not None else None
        self._private = {name for name in variant.points if name == serial or PRIVATE_NAME.search(name)}
        rules = identity.matches if identity is not None else ()
        overlays = variant.document.overlays
        when = chain.from_iterable(overlay.when for overlay in overlays)
        tested = {rule.point for rule in (*rules, *when, *(control.needs if control is not None else ()))}
        readings = [variant.document.readings, *(overlay.readings for overlay in overlays)]
        mapped = {name for group in readings for reading in group.values() for name in reading.points()}
        named = {identity.maker, identity.product, identity.firmware} if identity is not None else set()
        self._understood = (tested | mapped | named) - self._private
        self._points = variant.points
        own = [raw for name, raw in said.items() if name in self._private and isinstance(raw, str)]
        self._known = [text for text in (*own, *private) if len(text) >= KNOWN_LENGTH]

    def masked(self, name: str, raw: Raw) -> Raw:
        """The raw value of a point without what is private in it."""
        private = name in self._private
        if self._points[name].type is PointType.TEXT:
            private |= name not in self._understood
        clean: Raw = raw
        if isinstance(raw, str):
            clean = _anonymous(raw) if private else self._without_known(raw)
        elif isinstance(raw, tuple) and private:
            text = self._points[name].type is PointType.TEXT
            clean = tuple(_anonymous_word(word) if text else 0 for word in raw)
        elif private and not isinstance(raw, Marker | bool | tuple):
            clean = 0
        if clean != raw:
            self.names.add(name)
        return clean

    def level(self, level: str) -> str:
        """A level of a topic; a short one is a number of a part, not of a product."""
        return _anonymous(level) if len(level) >= KNOWN_LENGTH else level

    def _without_known(self, text: str) -> str:
        text = MAC.sub(lambda mac: _anonymous(mac[0]), text)
        for known in self._known:
            text = text.replace(known, _anonymous(known))
        return text


def _anonymous(text: str) -> str:
    return "".join("0" if char.isdigit() else "x" if char.isalpha() else char for char in text)


def _anonymous_word(word: int) -> int:
    return int.from_bytes(
        bytes(
            ord("0") if chr(byte).isdigit() else ord("x") if chr(byte).isalpha() else byte for byte in word.to_bytes(2)
        )
    )


def _registers(variant: ProductVariant, raws: Raws, units: Mapping[str, int], _levels: Levels, _found: Found) -> Json:
    """Words by unit/function/address, neighbours in one entry."""
    words: dict[tuple[int, int], dict[int, int]] = {}
    for name, raw in raws.items():
        point = variant.points[name]
        if point.address is not None and isinstance(raw, tuple):
            image = words.setdefault((units[point.unit_id], point.function), {})
            image.update((point.address + i, word) for i, word in enumerate(raw))
    return {f"{unit}/{function}/{at}": run for (unit, function), image in words.items() for at, run in _runs(image)}


def _models(variant: ProductVariant, raws: Raws, _units: Mapping[str, int], _levels: Levels, found: Found) -> Json:
    """Words by model and offset from its id word, neighbours in one entry; where it has blocks, `length` and `named`
    say which."""
    section, words = variant.document.modbus, dict[str, dict[int, int]]()
    for name, raw in raws.items():
        point = variant.points[name]
        if section is None or section.sunspec is None or point.model is None or not isinstance(raw, tuple):
            continue
        here = found.get(str(point.model))
        if here is None:
            continue
        model = Model(number=here.number, address=0, length=here.length, named=here.blocks)
        offset = address_of(point, {point.model: model}, section.sunspec)
        if offset is not None:
            words.setdefault(str(point.model), {}).update((offset + i, word) for i, word in enumerate(raw))
    counted = {str(key) for key in section.sunspec.blocks} if section is not None and section.sunspec else set()
    return [
        {"model": found[key].number, "offset": at, "words": run}
        | ({"length": found[key].length} if key in counted else {})
        | ({"named": dict(found[key].blocks)} if found[key].blocks else {})
        for key, image in words.items()
        for at, run in _runs(image)
    ]


def _documents(
    variant: ProductVariant, raws: Raws, _units: Mapping[str, int], levels: Levels, _found: Found
) -> dict[str, Json]:
    """JSON documents by path or topic, with the members that points read and no others; a bare payload as it is."""
    documents: dict[str, dict[str, Json]] = {}
    bare: dict[str, Json] = {}
    for name, raw in raws.items():
        point = variant.points[name]
        place = point.document or topic_of(point.topic or "", levels)
        if point.pointer and raw is not Marker.EMPTY:
            _put(documents.setdefault(place, {}), tokens_of(point.pointer), None if isinstance(raw, Marker) else raw)
        else:
            bare[place] = "" if raw is Marker.EMPTY else None if isinstance(raw, Marker) else raw
    return bare | {place: _with_lists(document) for place, document in documents.items()}


def _payloads(variant: ProductVariant, raws: Raws, units: Mapping[str, int], levels: Levels, found: Found) -> Json:
    """Payloads as text, by topic."""
    documents = _documents(variant, raws, units, levels, found)
    return {topic: value if isinstance(value, str) else json.dumps(value) for topic, value in documents.items()}


_SAMPLES: Mapping[str, Callable[[ProductVariant, Raws, Mapping[str, int], Levels, Found], Json]] = {
    "registers": _registers, "sunspec": _models, "http": _documents, "mqtt": _payloads,
}  # fmt: skip


def _runs(image: Mapping[int, int]) -> Iterator[Run]:
    """Stretches of neighbouring words, each with where it begins."""
    begin, run = 0, list[int]()
    for at in sorted(image):
        if run and at == begin + len(run):
            run.append(image[at])
            continue
        if run:
            yield begin, run
        begin, run = at, [image[at]]
    if run:
        yield begin, run


def _put(document: dict[str, Json], tokens: tuple[str, ...], value: Json) -> None:
    for token in tokens[:-1]:
        inner = document.setdefault(token, {})
        if not isinstance(inner, dict):
            return
        document = inner
    document[tokens[-1]] = value


def _with_lists(document: Json) -> Json:
    """A document whose members by number, and those chosen by what they say, are the elements of a list again."""
    if not isinstance(document, dict):
        return document
    members = {name: _with_lists(value) for name, value in document.items()}
    if members and all(name.isdecimal() and int(name) < LIST_MAX for name in members):
        return [members.get(str(i)) for i in range(max(map(int, members)) + 1)]
    chosen = [CHOICE.fullmatch(name) for name in members]
    if members and all(chosen):
        return [_element(choice, inner) for choice, inner in zip(chosen, members.values(), strict=True)]
    return members


def _element(choice: re.Match[str] | None, inner: Json) -> Json:
    return {choice[1]: choice[2], **inner} if choice is not None and isinstance(inner, dict) else inner


def _held(variant: ProductVariant, values: Values) -> list[str]:
    """The points of which every identity rule holds, as the vector has them."""
    identity = variant.document.identity
    held: dict[str, bool] = {}
    for rule in identity.rules if identity is not None else ():
        held[rule.point] = held.get(rule.point, True) and holds(rule, values) is True
    return [name for name, holding in held.items() if holding]


def _plain(value: Value) -> Value | int:
    return int(value) if isinstance(value, float) and value.is_integer() else value
