"""The file that maps devices to the aggregator's meters."""

from pathlib import Path

import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.types import DeviceId
from gateway.sinks.leap import meters as leap_meters
from gateway.sinks.leap.meters import MeterFile, read_meters
from gateway.sinks.leap.rows import LeapMeter
from tests.builders.leap import meter_id
from tests.scenes.leap import mapping

M1, M2 = meter_id(1), meter_id(2)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: not the header"),
        ("device;meter_id\n", "line 1: not the header"),
        ("device,meter_id\n", "no meter"),
        (f"device,meter_id\na,{M1}\n,{M2}\n", "line 3: no device"),
        (f"device,meter_id\na,{M1}\na,{M2}\n", "line 3: 'a' was named before"),
        (f"device,meter_id\na,{M1}\nb,{M1}\n", f"line 3: '{M1}' was named before"),
        (f"device,meter_id\na,{M1}\nb,{M1.upper()}\n", f"line 3: '{M1}' was named before"),
        ("device,meter_id\na\n", "line 2: not a device"),
        (f"device,meter_id\n\na,{M1}\n", "line 2: not a device"),
        ("device,meter_id\na,meter-7\n", "line 2: not a meter, which is a UUID: 'meter-7'"),
        (f"device,meter_id\na,{M1}0\n", "line 2: not a meter"),
        (f"device,meter_id\na,{{{M1}}}\n", "line 2: not a meter"),
        (f"device,meter_id,region\na,{M1},ZZ\n", "line 2: not a state"),
        (f'device,meter_id\na,"{M1}\n', "unexpected end"),
    ],
)
def test_meters_file_with_a_fault_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem.replace("{", r"\{")):
        read_meters(text)


def test_meters_file_tells_all_faults_and_takes_any_line_ends_and_letters() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_meters(f"device,meter_id\n,{M1}\na,\nb,{M2}\n")
    assert len(caught.value.problems) == 2
    assert read_meters(f"device,meter_id,region\r\na,{M1.upper()},CA\r\nb,{M2},\r\n") == {
        "a": LeapMeter(id=M1, region="CA"),
        "b": LeapMeter(id=M2),
    }


def test_meters_file_is_read_again_when_it_changes_and_a_bad_one_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "meters.csv"
    path.write_text(mapping(1, 2), encoding="utf-8")
    file = MeterFile(path)
    assert len(file.current(0) or {}) == 2
    path.with_suffix(".new").write_text("device,meter\n", encoding="utf-8")
    path.with_suffix(".new").replace(path)
    assert len(file.current(leap_meters.CHECK_MS - 1) or {}) == 2
    assert file.failing is None
    assert len(file.current(leap_meters.CHECK_MS) or {}) == 2
    assert "line 1" in (file.failing or "")
    path.with_suffix(".new").write_text(mapping(1, 2, 3), encoding="utf-8")
    path.with_suffix(".new").replace(path)
    assert len(file.current(2 * leap_meters.CHECK_MS) or {}) == 3
    assert (file.failing, file.count) == (None, 3)


def test_meters_file_that_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = tmp_path / "meters.csv", []
    path.write_text(mapping(1), encoding="utf-8")

    def counted(text: str) -> dict[DeviceId, LeapMeter]:
        reads.append(text)
        return read_meters(text)

    monkeypatch.setattr(leap_meters, "read_meters", counted)
    file = MeterFile(path)
    for mono_ms in range(0, 60_000, 1_000):
        file.current(mono_ms)
    assert len(reads) == 1
