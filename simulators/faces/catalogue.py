"""Every simulated product by the name of its profile."""

import shutil
from typing import Any

from simulators.faces.foxess_h3 import FoxessH3
from simulators.faces.fronius_gen24 import FroniusGen24
from simulators.faces.goodwe_et import GoodweEt
from simulators.faces.hoymiles_ms_a2 import HoymilesMsA2
from simulators.faces.huawei_luna2000 import HuaweiLuna2000
from simulators.faces.plant import Face, Plant
from simulators.faces.sigenergy_plant import SigenergyPlant
from simulators.faces.sma_sbs import SmaSbs
from simulators.faces.solaredge_storedge import SolarEdgeStorEdge
from simulators.faces.sonnen_v1 import SonnenV1
from simulators.faces.sonnen_v2 import SonnenV2
from simulators.faces.sungrow_sh import SungrowSh
from simulators.faces.sunspec_der import SunSpecDer
from simulators.faces.tesla_powerwall import TeslaPowerwall
from simulators.faces.victron_gx_modbus import VictronGxModbus
from simulators.faces.victron_gx_mqtt import VictronGxMqtt

FACES: dict[str, type[Any]] = {
    FoxessH3.profile: FoxessH3,
    FroniusGen24.profile: FroniusGen24,
    GoodweEt.profile: GoodweEt,
    HoymilesMsA2.profile: HoymilesMsA2,
    HuaweiLuna2000.profile: HuaweiLuna2000,
    SigenergyPlant.profile: SigenergyPlant,
    SmaSbs.profile: SmaSbs,
    SolarEdgeStorEdge.profile: SolarEdgeStorEdge,
    SonnenV1.profile: SonnenV1,
    SonnenV2.profile: SonnenV2,
    SungrowSh.profile: SungrowSh,
    SunSpecDer.profile: SunSpecDer,
    TeslaPowerwall.profile: TeslaPowerwall,
    VictronGxModbus.profile: VictronGxModbus,
    VictronGxMqtt.profile: VictronGxMqtt,
}
ON_OUR_BROKER = frozenset({"hoymiles-ms-a2"})
# Pauses of the real product in real seconds, left out where simulated time runs fast.
_QUICK: dict[str, dict[str, float]] = {
    "huawei-luna2000": {"rest_s": 0.0, "spacing_s": 0.0},
    "sigenergy-plant": {"spacing_s": 0.0},
    "solaredge-storedge": {"reopen_s": 0.0},
    "sungrow-sh": {"spacing_s": 0.0, "stale_s": 0.0},
}


def make_face(profile: str, plant: Plant, *, broker: tuple[str, int] | None = None, quick: bool = False) -> Face:
    """The simulated product of `profile`. `broker` (host, port) for products that are clients of ours; `quick` leaves
    out pauses in real time. Raises KeyError for a product without a simulator."""
    settings: dict[str, Any] = dict(_QUICK.get(profile, {})) if quick else {}
    if profile in ON_OUR_BROKER:
        if broker is None:
            raise ValueError(f"{profile} is a client of our broker and needs one")
        settings["host"], settings["port"] = broker
    if profile == TeslaPowerwall.profile:
        # Its certificate is made by openssl; without the program it speaks plain HTTP.
        settings["tls"] = shutil.which("openssl") is not None
    face: Face = FACES[profile](plant, **settings)
    return face
