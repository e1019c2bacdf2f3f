"""The compiled reference profile and the rules of the language."""

from pathlib import Path

import numpy as np
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.commands import CommandOp
from gateway.domain.errors import InvalidInput
from gateway.domain.types import CLEAR, NEVER_MS, Grid, Mode, Unclear, is_device_id
from gateway.profiles.compile import Codec
from gateway.profiles.compiled.messages import MessageRefused, Route
from gateway.profiles.loader import load_profiles, parse_profile

PROFILES = Path(__file__).parents[2] / "device_profiles"
REFERENCE = (PROFILES / "reference-mqtt.yaml").read_text()


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_profiles(PROFILES)["reference-mqtt"]


def live(**values: object) -> bytes:
    return orjson.dumps({"id": "home-1", "t": 1_764_000_000_000, "battery_w": 1500.5, "soc_pct": 55, **values})


def test_decoder_full_message_gives_canonical_columns(codec: Codec) -> None:
    decoder = codec.decoders["live"]
    row = decoder.decode(live(mode="remote", grid="island", faults=4, cmd=77, grid_w=-200.0), "home-1")
    columns = decoder.to_columns([row])
    assert columns["battery_w"].tolist() == [1500.5]
    assert columns["grid_w"].tolist() == [-200.0]
    assert columns["mode"].tolist() == [Mode.REMOTE]
    assert columns["grid"].tolist() == [Grid.ISLAND]
    assert columns["faults"].tolist() == [4]
    assert columns["cmd"].tolist() == [77]
    assert columns["device_t_ms"].tolist() == [1_764_000_000_000]


def test_decoder_absent_and_null_points_are_unknown_not_zero(codec: Codec) -> None:
    decoder = codec.decoders["live"]
    columns = decoder.to_columns([decoder.decode(orjson.dumps({"id": "home-1", "pv_w": None}), "home-1")])
    for name in ("battery_w", "soc_pct", "pv_w", "reserve_pct"):
        assert np.isnan(columns[name][0]), name
    assert columns["device_t_ms"][0] == NEVER_MS
    assert columns["mode"][0] == Mode.UNKNOWN


@pytest.mark.parametrize("bad", ["NaN", 101.0, -1, True, [], 1e308])
def test_decoder_implausible_point_becomes_unknown_and_the_rest_stays(codec: Codec, bad: object) -> None:
    decoder = codec.decoders["live"]
    before = decoder.implausible
    row = decoder.decode(live(soc_pct=bad), "home-1")
    assert row.soc_pct is None
    assert row.battery_w == 1500.5
    assert decoder.implausible == before + 1


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b'\xff\xfe{"id":"home-1"}', "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"[]", "schema"),
        (b'{"battery_w":1}', "schema"),
        (b'{"id":5}', "schema"),
        (b'{"id":"home-2","battery_w":1}', "identity"),
    ],
)
def test_decoder_unusable_message_is_refused_with_its_reason(codec: Codec, payload: bytes, reason: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        codec.decoders["live"].decode(payload, "home-1")
    assert refused.value.reason == reason


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e400", b"9" * 500])
def test_decoder_number_that_json_does_not_have_is_unknown_and_the_rest_stays(codec: Codec, number: bytes) -> None:
    payload = live(grid="island").replace(b'"battery_w":1500.5', b'"battery_w":' + number)
    row, unclear = codec.decoders["live"].reread(payload, "home-1")
    assert (row.battery_w, row.soc_pct, row.grid, unclear) == (None, 55.0, "island", CLEAR)


@pytest.mark.parametrize(
    ("member", "value", "unclear"),
    [
        ("opt_out", 1, Unclear.OPT_OUT),
        ("opt_out", None, Unclear.OPT_OUT),
        ("locked", "true", Unclear.LOCKED),
        ("faults", -1, Unclear.FAULTS),
        ("faults", True, Unclear.FAULTS),
        ("faults", 0.5, Unclear.FAULTS),
        ("faults", 1e30, Unclear.FAULTS),
        ("grid", "off", Unclear.GRID),
        ("mode", "vacation", Unclear.MODE),
        ("reserve_pct", "50", Unclear.RESERVE_PCT),
        ("reserve_pct", 101, Unclear.RESERVE_PCT),
        ("discharge_w_max", -5, Unclear.DISCHARGE_W_MAX),
        ("charge_w_max", [], Unclear.CHARGE_W_MAX),
        ("temp_c", "hot", Unclear.TEMP_C),
        ("grid_l2_w", {}, Unclear.GRID_PHASES),
        # what is unknown here is safe by itself, or null means that it is
        ("soc_pct", "x", CLEAR),
        ("battery_w", True, CLEAR),
        ("reserve_pct", None, CLEAR),
        ("temp_c", None, CLEAR),
        ("opt_out", False, CLEAR),
        ("grid", "on", CLEAR),
        ("faults", 0.0, CLEAR),
        ("faults", 1 << 63, CLEAR),
        ("not_ours", 1, CLEAR),
    ],
)
def test_decoder_word_of_safety_that_is_not_understood_is_named(
    codec: Codec, member: str, value: object, unclear: Unclear
) -> None:
    row, found = codec.decoders["live"].reread(live(**{member: value}), "home-1")
    assert found == unclear
    assert (row.device, row.soc_pct if member != "soc_pct" else 55) == ("home-1", 55)


@pytest.mark.parametrize(("word", "bits"), [(0, 0), (1, 1), ((1 << 63) + 1, 1 - (1 << 63)), ((1 << 64) - 1, -1)])
def test_decoder_fault_word_keeps_all_its_bits(codec: Codec, word: int, bits: int) -> None:
    decoder = codec.decoders["live"]
    row = decoder.decode(orjson.dumps({"id": "home-1", "faults": word}), "home-1")
    assert decoder.to_columns([row])["faults"].tolist() == [bits]


def test_decoder_well_formed_message_takes_the_fast_path_only(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = codec.decoders["live"]
    monkeypatch.setattr(decoder, "_lenient", None)
    row, unclear = decoder.reread(live(mode="remote", grid="on", opt_out=False, locked=True, faults=7), "home-1")
    assert (row.mode, row.locked, row.faults, unclear) == ("remote", True, 7, CLEAR)


@pytest.mark.parametrize("missing", ["boot", "seq", "t"])
def test_decoder_energy_without_its_required_points_is_refused(codec: Codec, missing: str) -> None:
    message = {"id": "home-1", "boot": 1, "seq": 2, "t": 3}
    del message[missing]
    with pytest.raises(MessageRefused) as refused:
        codec.decoders["energy"].decode(orjson.dumps(message), "home-1")
    assert refused.value.reason == "schema"


def test_encoder_setpoint_and_release_are_written_as_the_protocol_says(codec: Codec) -> None:
    assert codec.encoder is not None
    wire = codec.encoder.encode(CommandOp.SETPOINT, "home-1", 9, 1000, setpoint_w=-1200, lease_s=90, reserve_pct=np.nan)
    assert orjson.loads(wire) == {
        "id": "home-1", "cmd": 9, "valid_until": 1000, "op": "setpoint", "setpoint_w": -1200, "lease_s": 90,
    }  # fmt: skip
    wire = codec.encoder.encode(CommandOp.RELEASE, "home-1", 10, 1000, setpoint_w=5, lease_s=90, reserve_pct=np.nan)
    assert orjson.loads(wire) == {"id": "home-1", "cmd": 10, "valid_until": 1000, "op": "release"}


def test_signs_of_a_charge_positive_product_are_made_canonical_both_ways() -> None:
    raw = yaml.safe_load(REFERENCE)
    raw["messages"]["live"]["points"]["battery_w"]["sign"] = "charge_positive"
    raw["messages"]["live"]["points"]["battery_w"]["scale"] = 1000
    raw["commands"]["setpoint_sign"] = "charge_positive"
    codec = _compiled(raw)
    decoder = codec.decoders["live"]
    columns = decoder.to_columns([decoder.decode(live(battery_w=-2.5), "home-1")])
    assert columns["battery_w"].tolist() == [2500.0]
    assert codec.encoder is not None
    wire = codec.encoder.encode(CommandOp.SETPOINT, "home-1", 9, 1000, setpoint_w=1200, lease_s=90, reserve_pct=0)
    assert orjson.loads(wire)["setpoint_w"] == -1200


def _compiled(raw: dict[str, object]) -> Codec:
    from gateway.profiles.compile import compile_profile

    return compile_profile(parse_profile(yaml.safe_dump(raw), name="test.yaml"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda p: p.update(extra=1), "extra"),
        (lambda p: p["messages"]["live"]["points"].update(volts={"key": "v"}), "points.volts"),
        (lambda p: p["messages"]["live"]["points"]["battery_w"].pop("sign"), "battery_w.sign"),
        (lambda p: p["messages"]["live"]["points"]["battery_w"].update(sign="import_positive"), "battery_w.sign"),
        (lambda p: p["messages"]["live"]["points"]["battery_w"].update(unit="kW"), "battery_w.unit"),
        (lambda p: p["messages"]["live"]["points"]["battery_w"].pop("range"), "battery_w.range"),
        (lambda p: p["messages"]["live"]["points"]["pv_w"].update(key="battery_w"), "used twice"),
        (lambda p: p["messages"]["live"].update(topic="a/b"), "{device}"),
        (lambda p: p["messages"]["live"].update(topic="a/{device}/{device}"), "{device}"),
        (lambda p: p["messages"]["live"].update(topic="a/#/{device}"), "topic"),
        (lambda p: p["messages"]["energy"]["points"].pop("seq"), "energy.points.seq"),
        (lambda p: p["messages"]["live"]["points"]["mode"]["values"].update(x="turbo"), "turbo"),
        (lambda p: p["commands"]["forms"].pop("release"), "release"),
        (lambda p: p["commands"]["forms"]["setpoint"]["arguments"].pop("lease_s"), "lease_s"),
        (lambda p: p["watchdog"].update(lease_s=0), "watchdog.lease_s"),
        (lambda p: p["messages"].pop("ack"), "messages.ack"),
    ],
)
def test_loader_faulty_profile_names_file_and_place(change: object, complaint: str) -> None:
    raw = yaml.safe_load(REFERENCE)
    change(raw)  # type: ignore[operator]
    with pytest.raises(InvalidInput) as fault:
        parse_profile(yaml.safe_dump(raw), name="product.yaml")
    assert any("product.yaml" in problem and complaint in problem for problem in fault.value.problems)


@pytest.mark.parametrize("text", ["", "a: [", "!!python/object/apply:os.system ['true']", "- 1", "\x00"])
def test_loader_text_that_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_profile(text, name="product.yaml")


@given(st.text(max_size=80))
def test_route_never_builds_or_accepts_a_topic_outside_its_place(text: str) -> None:
    route = Route("gateway/v1/devices/{device}/live")
    topic = f"gateway/v1/devices/{text}/live"
    found = route.device(topic)
    assert found == (text if is_device_id(text) else None)
    if found is not None:
        assert route.topic(found) == topic
        assert topic.count("/") == 4
