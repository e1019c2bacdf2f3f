"""Whose identity each profile takes: the models it was written for, and none that only resembles them."""

from pathlib import Path

import pytest

from gateway.domain.types import Mode, Unclear
from gateway.profiles.compiled.points import Value, Values
from gateway.profiles.compiled.variant import ProductVariant
from gateway.profiles.loader import load_profiles

ROOT = Path(__file__).parents[2]
PLACE = {"address", "model", "offset", "block", "path", "topic", "pointer", "function", "unit_id"}
PROGRAMS: dict[str, ProductVariant] = {
    name: codec.product.base
    for name, codec in load_profiles(ROOT / "device_profiles").items()
    if codec.product is not None
}
# What a device of each product says where nothing else is told.
SAYS: dict[str, dict[str, Value]] = {
    "foxess-h3": {"model": "H3-10.0-E"},
    "fronius-gen24": {"maker": "Fronius", "model": "Symo GEN24 10.0", "modules": 4.0},
    "solaredge-storedge": {"maker": "SolarEdge"},
    "foxess-h1": {"model": "H1-5.0-E"},
    "foxess-h3-smart": {"model": "H3-10.0-Smart"},
    "goodwe-et": {"model": "GW10K-ET", "ems_there": 1.0},
    "sma-sbs": {"device_class": 8007.0, "device_type": 9358.0},
    "sonnen-v1": {"says_soc": 50.0, "mode": "2"},
    "sonnen-v2": {"software": "1.14.5", "operating_mode": "2"},
    "victron-gx-modbus": {"ess_there": 2.0},
    "huawei-luna2000": {"model": "SUN2000-5KTL-L1"},
    "tesla-powerwall": {"device_type": "teg"},
    "sunspec-der": {"maker": "Example Storage", "ctrl_modes": 3.0, "wh_rating": 9_600.0, "soc": 0.0},
}


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


FOXESS = {
    "foxess-h1": ("H1-3.0", "H1-3.7-E", "H1-5.0-E", "H1-5.0-E-G2", "H1-6.0-E-G2"),
    "foxess-h3": ("H3-5.0-E", "H3-9.9-E", "H3-12.0-E"),
    "foxess-h3-smart": ("H3-10.0-Smart", "H3-12.0-SMART", "H3-Pro-20.0", "H3-12.0-M"),
    "": ("H3", "H3-10.0-E-G2", "KH10.5", "AC1-5.0-E", ""),
}


@pytest.mark.parametrize(("wanted", "model"), [(name, model) for name, models in FOXESS.items() for model in models])
def test_identity_of_every_foxess_model_is_taken_by_its_own_profile_alone(wanted: str, model: str) -> None:
    taken = [name for name in FOXESS if name and not refused(name, model=model)]
    assert taken == ([wanted] if wanted else [])


@pytest.mark.parametrize(
    ("profile", "point", "good"),
    [
        ("fronius-gen24", "model", ("Symo GEN24 10.0", "Symo GEN24 10.0 Plus", "Primo GEN24 6.0 Plus")),
        ("solaredge-storedge", "maker", ("SolarEdge",)),
        ("goodwe-et", "model", ("GW10K-ET", "GW29K9-ET", "GW6000-EH", "GW10K-BT", "GW6000-BH", "GW10K-ET-2")),
        ("huawei-luna2000", "model", ("SUN2000-5KTL-L1", "SUN2000-10KTL-M1", "SUN2000L-3KTL")),
        ("tesla-powerwall", "device_type", ("hec", "teg", "smc")),
        ("sunspec-der", "maker", ("Example Storage", "")),
    ],
)
def test_identity_of_every_model_of_the_product_is_taken(profile: str, point: str, good: tuple[str, ...]) -> None:
    assert [(said, refused(profile, **{point: said})) for said in good if refused(profile, **{point: said})] == []


@pytest.mark.parametrize(
    ("profile", "point", "said"),
    [
        ("sonnen-v1", "mode", "11"),
        ("sonnen-v2", "operating_mode", "11"),
        ("sonnen-v2", "operating_mode", "later"),
        ("victron-gx-modbus", "ess_there", 4.0),
        ("goodwe-et", "ems_there", 200.0),
    ],
)
def test_identity_a_mode_that_nobody_listed_is_no_other_product(profile: str, point: str, said: Value) -> None:
    assert refused(profile, **{point: said}) == []


@pytest.mark.parametrize(("profile", "point"), [("sonnen-v1", "says_soc"), ("sonnen-v2", "operating_mode")])
def test_identity_of_what_says_nothing_of_the_product_is_refused(profile: str, point: str) -> None:
    assert refused(profile, **{point: None}) != []


def test_identity_sonnen_of_firmware_without_a_mode_is_the_product() -> None:
    assert refused("sonnen-v1", mode=None, system_status=None, reserve=None) == []


def test_identity_rests_on_no_list_of_modes() -> None:
    """A mode is what an owner or new firmware changes: no rule may list its values."""
    listed = []
    for name, program in PROGRAMS.items():
        identity, mode = program.document.identity, program.document.readings.get("mode")
        known = {program.points[point].model_dump_json(include=PLACE) for point in (mode.points() if mode else ())}
        for rule in identity.rules if identity is not None else ():
            if rule.equals and program.points[rule.point].model_dump_json(include=PLACE) in known:
                listed.append(f"{name}: {rule.point}")
    assert listed == []


@pytest.mark.parametrize("device_type", [9326.0, 9356.0, 9358.0, 9359.0, 9362.0])
def test_identity_sma_of_every_size_is_the_product(device_type: float) -> None:
    assert refused("sma-sbs", device_type=device_type) == []


@pytest.mark.parametrize(
    ("profile", "values"),
    [
        ("sonnen-v1", {"mode": "11"}),
        ("sonnen-v2", {"status_mode": "11"}),
        ("victron-gx-modbus", {"ess_mode": 4.0, "setpoint_raw": 0.0}),
        ("foxess-h3", {"remote_enable": 0.0, "work_mode": 12.0}),
        ("foxess-h3-smart", {"remote_enable": 0.0, "work_mode": 12.0}),
        ("sungrow-sh", {"ems_mode": 9.0}),
        ("goodwe-et", {"ems_mode": 1.0, "owner_mode": 9.0}),
        ("goodwe-et", {"ems_mode": 99.0, "owner_mode": 0.0}),
        ("sigenergy-plant", {"remote_enable": 0.0, "ems_mode": 42.0}),
        ("tesla-powerwall", {"real_mode": "later"}),
    ],
)
def test_mode_that_nobody_listed_is_an_unknown_mode(profile: str, values: dict[str, Value]) -> None:
    found = Values()
    found.update(values)
    reading = PROGRAMS[profile].canonical(found)
    assert reading.quantities["mode"] == Mode.OTHER
    assert not reading.unclear & Unclear.MODE


@pytest.mark.parametrize(
    ("profile", "point", "said"),
    [
        # no battery, or elsewhere
        ("fronius-gen24", "model", "Tauro 50-3-P"),
        ("fronius-gen24", "model", "Symo 8.2-3-M"),
        ("fronius-gen24", "maker", "Fronius USA"),
        ("solaredge-storedge", "maker", "SolarEdge Clone"),
        # other families answer at other registers
        ("goodwe-et", "model", "GW5048-EM"),
        ("goodwe-et", "model", "GW5000-DNS"),
        ("goodwe-et", "model", "GEH10-1U-1"),
        ("huawei-luna2000", "model", "SUN2000P-450"),
        ("tesla-powerwall", "device_type", "tegra"),
        # 701 is the grid's power there
        ("sunspec-der", "maker", "FranklinWH"),
        # and there that of PV and battery together
        ("sunspec-der", "maker", "SolarEdge"),
        ("sunspec-der", "maker", None),
    ],
)
def test_identity_that_only_resembles_the_product_is_refused_with_what_it_said(
    profile: str, point: str, said: str | None
) -> None:
    why, *_ = refused(profile, **{point: said})
    assert why.startswith(f"{point} is {'unknown' if said is None else repr(said)}, expected ")


@pytest.mark.parametrize(("modules", "said"), [(2.0, "2"), (3.0, "3"), (7.0, "7"), (None, "unknown")])
@pytest.mark.parametrize("model", ["Symo GEN24 10.0", "Verto 25.0 Plus"])
def test_identity_fronius_with_a_number_of_modules_that_nobody_knows_is_refused(
    model: str, modules: Value, said: str
) -> None:
    why, *_ = refused("fronius-gen24", model=model, modules=modules)
    assert why == f"modules is {said}, expected one of 4, 5, 6"


@pytest.mark.parametrize(("model", "modules"), [("Symo GEN24 10.0", 4.0), ("Verto 25.0", 5.0), ("Verto 30.0", 6.0)])
def test_identity_fronius_of_every_known_build_is_taken(model: str, modules: float) -> None:
    assert refused("fronius-gen24", model=model, modules=modules) == []


@pytest.mark.parametrize(
    ("model", "modules"), [("Symo GEN24 10.0", 5.0), ("Symo GEN24 10.0", 6.0), ("Verto 30.0", 4.0)]
)
def test_identity_fronius_with_the_modules_of_another_build_is_refused(model: str, modules: float) -> None:
    """Four modules of a Verto without a battery are its four PV inputs."""
    assert refused("fronius-gen24", model=model, modules=modules) == [
        f"model is {model!r} and modules is {modules:g}, expected model a text with 'GEN24' in it and modules 4, "
        "or model a text with 'Verto' in it and modules one of 5, 6"
    ]


@pytest.mark.parametrize("soc", [0.0, None])
def test_identity_of_a_storage_model_without_a_storage_is_refused(soc: float | None) -> None:
    """What it says then is the power of its PV, and a state of charge of 0 %."""
    said = "unknown" if soc is None else "0"
    assert refused("sunspec-der", wh_rating=None, soc=soc) == [
        f"wh_rating is unknown and soc is {said}, expected wh_rating more than 0, or soc more than 0"
    ]


@pytest.mark.parametrize(("rating", "soc"), [(9_600.0, 0.0), (9_600.0, None), (None, 0.5), (0.0, 50.0)])
def test_identity_of_a_storage_that_says_its_size_or_its_charge_is_taken(
    rating: float | None, soc: float | None
) -> None:
    assert refused("sunspec-der", wh_rating=rating, soc=soc) == []
