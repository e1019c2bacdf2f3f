"""What the daemon says of its configuration and profiles when it starts."""

import logging
from pathlib import Path

import pytest

from gateway.app.daemon import log_inputs
from gateway.config.loader import load_settings
from gateway.profiles.loader import load_profiles
from tests.builders.profiles import MODBUS
from tests.config.test_settings import write


@pytest.mark.parametrize(("maintenance", "latency"), [("upkeep", "delivery_s"), ("maintenance", "command_latency_s")])
def test_daemon_warns_once_of_each_former_key_and_of_no_new_one(
    maintenance: str, latency: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = MODBUS.replace("command_latency_s", latency)
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "sample-modbus.yaml").write_text(text, encoding="utf-8")
    settings = load_settings(write(tmp_path, control={maintenance: {}}))
    with caplog.at_level(logging.WARNING):
        log_inputs(settings, load_profiles(profiles))
    told = [(record.getMessage(), vars(record)["key"].split(": ")[1]) for record in caplog.records]
    assert told == ([] if maintenance == "maintenance" else [
        ("configuration uses a former key", "control.upkeep"),
        ("profile uses a former key", "facts.delivery_s"),
    ])  # fmt: skip
