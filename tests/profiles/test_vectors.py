"""Profiles make of published samples of real products what these mean (form: tests/vectors/README.md)."""

import math
from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import Field, model_validator

from gateway.domain.types import unclear_names
from gateway.links.json_values import raw_of, tokens_of, value_at
from gateway.links.modbus.sunspec import Model, address_of
from gateway.links.mqtt.cache import DeviceCache, points_of, topic_of
from gateway.profiles.compiled.points import Marker, Raw, Unreadable, Value, Values
from gateway.profiles.compiled.readings import holds
from gateway.profiles.compiled.variant import PointProduct, ProductVariant
from gateway.profiles.language.base import ModelKey, Name, Source, StrictModel
from gateway.profiles.language.quantities import READINGS
from gateway.profiles.loader import load_profiles

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
NONE = "none.yaml"
TOLERANCE = 1e-6
PRODUCTS = {
    name: codec.product for name, codec in load_profiles(ROOT / "device_profiles").items() if codec.product is not None
}
FILES = sorted(path for path in VECTORS.glob("*/*.yaml") if path.name != NONE)
NOTHING_PUBLISHED = sorted(VECTORS.glob(f"*/{NONE}"))
Where = tuple[int | None, int, int]
Expected = dict[Name, bool | int | float | str | None]


class SunSpecWords(StrictModel):
    """`offset` is counted from the model's id word; `length` of a model whose blocks are counted by it, `named` numbers
    of blocks by the profile's names."""

    model: int
    offset: int
    length: int = 0xFFFF
    named: dict[Name, int] = Field(default_factory=dict)
    words: tuple[int, ...] = Field(min_length=1)


class Sample(StrictModel):
    """Exactly one form. Keys of `registers` are unit/function/address, unit `-` = not told; payloads are text."""

    registers: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    sunspec: tuple[SunSpecWords, ...] = ()
    http: dict[str, object] = Field(default_factory=dict)
    mqtt: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_form(self) -> "Sample":
        if sum(bool(form) for form in (self.registers, self.sunspec, self.http, self.mqtt)) != 1:
            raise ValueError("exactly one of registers, sunspec, http and mqtt")
        return self


class Vector(StrictModel):
    """One published sample. `units` and `levels` are those of the sample, `identity` points whose rules must hold,
    `assumed` values of points that it lacks and on which what it has rests: a status, a second battery."""

    source: Source
    kind: Literal["capture", "maker", "library", "decoded"]
    note: str = ""
    variant: str = ""
    units: dict[Name, int] = Field(default_factory=dict)
    levels: dict[Name, str] = Field(default_factory=dict)
    raw: Sample
    identity: tuple[Name, ...] = ()
    assumed: Expected = Field(default_factory=dict)
    points: Expected = Field(default_factory=dict)
    readings: Expected = Field(default_factory=dict)
    doubts: tuple[Name, ...] = ()


class Nothing(StrictModel):
    """No sample is published; `searched` is what was looked through."""

    searched: tuple[str, ...] = Field(min_length=1)
    why: str = Field(min_length=10)


def vector_of(path: Path) -> Vector:
    return Vector.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def register_image(sample: Sample) -> dict[Where, int]:
    image: dict[Where, int] = {}
    for key, words in sample.registers.items():
        unit, function, address = key.split("/")
        for i, word in enumerate(words):
            image[(None if unit == "-" else int(unit), int(function), int(address) + i)] = word
    return image


def from_registers(vector: Vector, variant: ProductVariant) -> dict[str, tuple[Raw, str]]:
    """Raw values of the points whose words are all there, and the entry of the sample that holds each."""
    section = variant.document.modbus
    assert section is not None
    image = register_image(vector.raw)
    units = section.units | vector.units
    out: dict[str, tuple[Raw, str]] = {}
    for name, point in variant.points.items():
        if point.address is None or not point.readable:
            continue
        for unit in (units[point.unit_id], None):
            where: list[Where] = [(unit, point.function, point.address + i) for i in range(point.register_count)]
            if all(place in image for place in where):
                out[name] = tuple(image[place] for place in where), entry_of(vector.raw, where[0])
    return out


def entry_of(sample: Sample, where: Where) -> str:
    unit, function, address = where
    for key, words in sample.registers.items():
        start = int(key.split("/")[2])
        if key.startswith(f"{'-' if unit is None else unit}/{function}/") and start <= address < start + len(words):
            return key
    raise AssertionError(f"{where} is in no entry")


def from_models(vector: Vector, variant: ProductVariant) -> dict[str, tuple[Raw, str]]:
    """As `from_registers`; places come from the link's own arithmetic, for models that begin at register 0."""
    section = variant.document.modbus
    assert section is not None
    out: dict[str, tuple[Raw, str]] = {}
    for entry in vector.raw.sunspec:
        assert section.sunspec is not None
        model = Model(number=entry.model, address=0, length=entry.length, named=entry.named)
        models: dict[ModelKey, Model] = {entry.model: model}
        models |= {name: model for name, spec in section.sunspec.models.items() if entry.model in spec.ids}
        for name, point in variant.points.items():
            at = address_of(point, models, section.sunspec) if point.readable else None
            if at is None:
                continue
            start = at - entry.offset
            if start >= 0 and start + point.register_count <= len(entry.words):
                out[name] = entry.words[start : start + point.register_count], f"{entry.model}+{entry.offset}"
    return out


def from_documents(vector: Vector, variant: ProductVariant) -> dict[str, tuple[Raw, str]]:
    """As the HTTP link: what no pointer leads to is missing."""
    out: dict[str, tuple[Raw, str]] = {}
    for name, point in variant.points.items():
        if point.document in vector.raw.http:
            raw = raw_of(value_at(vector.raw.http[point.document], tokens_of(point.pointer)))
            out[name] = Marker.MISSING if raw is None else raw, point.document
    return out


def from_payloads(vector: Vector, variant: ProductVariant) -> dict[str, tuple[Raw, str]]:
    """By the cache of the MQTT link."""
    cache = DeviceCache(points_of(variant.document), vector.levels, trust_retained=False)
    for topic, payload in vector.raw.mqtt.items():
        assert cache.ingest(topic, payload.encode(), retained=False, now_ms=0), f"{topic}: the link refuses {payload!r}"
    out: dict[str, tuple[Raw, str]] = {}
    for name, point in variant.points.items():
        topic = topic_of(point.topic, vector.levels) if point.topic is not None else ""
        if topic in vector.raw.mqtt:
            raw = cache.raw(point)
            assert not isinstance(raw, Unreadable)
            out[name] = raw, topic
    return out


def sample_of(vector: Vector, variant: ProductVariant) -> tuple[dict[str, tuple[Raw, str]], set[str]]:
    """Raw values of all points that the sample has with the entries they came from, and every entry."""
    sample = vector.raw
    if sample.registers:
        return from_registers(vector, variant), set(sample.registers)
    if sample.sunspec:
        return from_models(vector, variant), {f"{entry.model}+{entry.offset}" for entry in sample.sunspec}
    if sample.http:
        return from_documents(vector, variant), set(sample.http)
    return from_payloads(vector, variant), set(sample.mqtt)


def same(found: Value, wanted: bool | int | float | str | None) -> bool:
    if isinstance(found, float) and isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return math.isclose(found, wanted, rel_tol=0, abs_tol=TOLERANCE)
    return type(found) is type(wanted) and found == wanted


def number_of(reading: str, wanted: bool | int | float | str | None) -> Value:
    """A canonical number as a vector writes it: names for enumerations, None for unknown."""
    members = READINGS[reading].members
    if members is not None:
        return float(members[str(wanted)]) if wanted is not None else 0.0
    return float(wanted) if isinstance(wanted, int | float) else math.nan


def disagreements(vector: Vector, product: PointProduct) -> list[str]:
    """What the profile makes of the sample other than expected, and what is wrong with the vector itself."""
    variant = next((variant for variant in product.variants if variant.variant == vector.variant), None)
    if variant is None:
        return [f"variant: the profile has no {vector.variant!r}"]
    unknown = [f"points: no {name}" for name in (*vector.points, *vector.identity) if name not in variant.points]
    unknown += [f"readings: no {name}" for name in vector.readings if name not in variant.readings]
    if unknown:
        return unknown
    if not vector.points:
        return ["points: nothing is expected"]
    sample, entries = sample_of(vector, variant)
    values = Values()
    values.update({n: float(v) if type(v) is int else v for n, v in vector.assumed.items()})
    variant.decode({name: raw for name, (raw, _) in sample.items()}, values)
    guards = {guard.point for name in vector.points for guard in variant.points[name].guards}
    guards |= {point for name in vector.readings for point in variant.document.readings[name].points()}
    wrong = [name for name in vector.assumed if name in sample or name not in guards]
    faults = [f"assumed: {name} is in the sample, or nothing rests on it" for name in wrong]
    faults += [f"points: the sample has no {name}" for name in vector.points if name not in sample]
    faults += _unused(vector, variant, sample, entries)
    for name, wanted in vector.points.items():
        if name in sample and not same(values[name], wanted):
            faults.append(f"points: {name} is {values[name]!r}, expected {wanted!r}")
    canonical = variant.canonical(values)
    for name, wanted in vector.readings.items():
        found, number = canonical.get(name), number_of(name, wanted)
        if not (same(found, number) or (isinstance(number, float) and math.isnan(number) and math.isnan(found))):
            faults.append(f"readings: {name} is {found!r}, expected {wanted!r}")
    if canonical.unclear:
        faults.append(f"readings: {', '.join(unclear_names(canonical.unclear))} of a real product is not understood")
    identity = variant.document.identity
    rules = [rule for rule in identity.rules if rule.point in vector.identity] if identity is not None else []
    faults += [f"identity: {rule.point} is {values.get(rule.point)!r}" for rule in rules if not holds(rule, values)]
    return faults + [f"identity: no rule for {n}" for n in vector.identity if n not in {rule.point for rule in rules}]


def _unused(
    vector: Vector, variant: ProductVariant, sample: dict[str, tuple[Raw, str]], entries: set[str]
) -> list[str]:
    """Entries nothing is expected of."""
    factors = {variant.points[name].scale_factor for name in vector.points}
    used = {entry for name, (_, entry) in sample.items() if name in vector.points or name in factors}
    return [f"raw: nothing is expected of {entry}" for entry in sorted(entries - used)]


def uncovered(products: set[str], directory: Path) -> list[str]:
    """Products that have neither vectors nor a file that says why there are none, or both, and what is no product."""
    there = {path.name: sorted(path.iterdir()) for path in directory.iterdir() if path.is_dir()}
    faults = [f"{name}: no directory" for name in sorted(products - set(there))]
    faults += [f"{name}: no profile" for name in sorted(set(there) - products)]
    for name, files in sorted(there.items()):
        vectors = [path for path in files if path.suffix == ".yaml" and path.name != NONE]
        none = [path for path in files if path.name == NONE]
        if bool(vectors) == bool(none):
            faults.append(f"{name}: {len(vectors)} vectors and {len(none)} {NONE}")
        faults += [f"{name}: {path.name} is no vector" for path in files if path.suffix != ".yaml"]
        for path in none:
            Nothing.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    return faults


def test_vectors_every_product_has_some_or_says_why_not() -> None:
    assert uncovered(set(PRODUCTS), VECTORS) == []
    assert {path.parent.name for path in FILES} | {path.parent.name for path in NOTHING_PUBLISHED} == set(PRODUCTS)


def test_uncovered_each_is_told_and_none_needs_its_reasons(tmp_path: Path) -> None:
    for name in ("with", "without", "both", "empty", "odd"):
        (tmp_path / name).mkdir()
    for name in ("with", "both", "odd"):
        (tmp_path / name / "sample.yaml").write_text("{}")
    for name in ("without", "both"):
        (tmp_path / name / NONE).write_text("{searched: [a repository], why: nobody has published one}")
    (tmp_path / "odd" / "sample.txt").touch()
    products = {"with", "without", "both", "empty", "new"}
    assert uncovered(products, tmp_path) == [
        "new: no directory",
        "odd: no profile",
        f"both: 1 vectors and 1 {NONE}",
        f"empty: 0 vectors and 0 {NONE}",
        "odd: sample.txt is no vector",
    ]
    (tmp_path / "without" / NONE).write_text("{searched: [], why: nobody has published one}")
    with pytest.raises(ValueError, match="searched"):
        uncovered(products, tmp_path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_vector_means_to_the_profile_what_the_product_said(path: Path) -> None:
    assert disagreements(vector_of(path), PRODUCTS[path.parent.name]) == []


REGISTERS: dict[str, object] = {"registers": {"247/3/31036": [65436], "247/3/31038": [88]}}
GOOD: dict[str, object] = {
    "source": "made up for tests",
    "kind": "library",
    "raw": REGISTERS,
    "points": {"battery_power": -100, "soc": 88},
    "readings": {"battery_w": -100, "pv_w": None, "mode": None},
}


def told(**change: object) -> list[str]:
    return disagreements(Vector.model_validate(GOOD | change), PRODUCTS["foxess-h3"])


def test_disagreements_good_vector_has_none() -> None:
    assert told() == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"points": {"battery_power": 100, "soc": 88}}, "points: battery_power is -100.0, expected 100"),
        ({"points": {"battery_power": None, "soc": 88}}, "points: battery_power is -100.0, expected None"),
        ({"points": {"battery_power": -100 + 1e-5, "soc": 88}}, "points: battery_power is -100.0, expected -99.99999"),
        ({"readings": {"battery_w": 100}}, "readings: battery_w is -100.0, expected 100"),
        ({"readings": {"soc_pct": None}}, "readings: soc_pct is 88.0, expected None"),
        ({"readings": {"mode": "remote"}}, "readings: mode is 0.0, expected 'remote'"),
        ({"points": {}}, "points: nothing is expected"),
        ({"points": {"soc": 88}}, "raw: nothing is expected of 247/3/31036"),
        ({"points": {"battery_power": -100, "soc": 88, "pv1_w": None}}, "points: the sample has no pv1_w"),
        ({"points": {"soc_of_h1": 88}}, "points: no soc_of_h1"),
        ({"readings": {"faults": 0}}, "readings: no faults"),
        ({"variant": "newer"}, "variant: the profile has no 'newer'"),
        ({"units": {"main": 1}}, "points: the sample has no soc"),
        ({"identity": ["model"]}, "identity: model is None"),
        ({"identity": ["soc"]}, "identity: no rule for soc"),
    ],
)
def test_disagreements_each_is_told(change: dict[str, object], fault: str) -> None:
    assert fault in told(**change)


def test_vector_of_two_forms_or_none_is_refused() -> None:
    for raw in ({}, REGISTERS | {"http": {"/api": {"a": 1}}}):
        with pytest.raises(ValueError, match="exactly one of registers"):
            Vector.model_validate(GOOD | {"raw": raw})
