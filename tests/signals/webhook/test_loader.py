"""Webhook files: those that ship are right, and every fault of another is told with file, line and path."""

from pathlib import Path

import pytest

from gateway.domain.errors import InvalidInput
from gateway.signals.webhook.json_schema import webhook_schema
from gateway.signals.webhook.loader import load_webhook, load_webhooks, parse_webhook
from tests.signals.webhook.builders import FOLDER

AXLE = (FOLDER / "axle.yaml").read_text(encoding="utf-8")


def faults(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        parse_webhook(text, name="axle.yaml")
    return refused.value.problems


def test_files_that_ship_are_right_and_say_that_they_are_not_verified() -> None:
    found = load_webhooks(FOLDER)
    assert sorted(found) == ["axle", "voltus"]
    assert {peer.document.evidence.value for peer in found.values()} == {"unverified"}
    assert "webhook" in webhook_schema()["properties"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("at: /event_id", "at: event_id", "event.id.at: a JSON pointer is"),
        ("at: /event_id", "at: /event~2id", 'event.id.at: in a JSON pointer "~"'),
        ("unit: kW", "unit: kWh", "event.power.unit: Input should be"),
        ("positive: charge", "positive: import", "event.power.positive: Input should be"),
        ("positive: charge", "positive: unsigned", "direction: power without a sign needs one"),
        ("encoding: hex", "encoding: base32", "auth.hmac_sha256.encoding: Input should be"),
        ('"{timestamp}.{body}"', '"{body}"', "signed: {timestamp} stands in it"),
        ('"{timestamp}.{body}"', '"{timestamp}."', "signed: {body} stands in it once"),
        ("as: rfc3339", "as: iso", "event.order.as: Input should be"),
        ("program: {value: uk-flexibility}", "program: {at: /p}", "words: the peer's programs"),
        ('prefix: "axle:"', 'prefix: "axle:", all: true', "exactly one of all, tags and at"),
        ("webhook: axle", "webhook: mqtt", "webhook: the gateway uses this name itself"),
        ("env:AXLE_WEBHOOK_SECRET", "in-plain-text", "auth.hmac_sha256.secret: String should match"),
        ("webhook: axle", "webhook: axle\nsurplus: 1", "surplus: Extra inputs are not permitted"),
        ("time: epoch_s, tolerance_s: 300", "time: epoch_s, tolerance_s: 0", "tolerance_s: Input should be"),
    ],
)  # fmt: skip
def test_fault_of_a_file_is_told_with_its_line_and_path(old: str, new: str, told: str) -> None:
    assert old in AXLE
    text = AXLE.replace(old, new, 1)
    line = AXLE[: AXLE.index(old)].count("\n") + 1
    found = faults(text)
    assert any(told in each for each in found), found
    lines = [int(each.split(":")[1]) for each in found if told in each]
    # a rule between two fields names the place that holds both
    assert all(abs(number - line) <= 13 for number in lines)
    assert all(each.startswith("axle.yaml:") for each in found)


def test_file_is_named_after_its_peer_and_its_secret_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(AXLE, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"other\.yaml:3: webhook: says 'axle', the file is named 'other'"):
        load_webhook(path)
    path = path.rename(tmp_path / "axle.yaml")
    with pytest.raises(InvalidInput, match=r"axle\.yaml:13: auth\.secret: not set"):
        load_webhook(path, lambda _reference: (None, "not set"))
    with pytest.raises(InvalidInput, match=r"auth\.secret: shorter than 16 characters"):
        load_webhook(path, lambda _reference: ("short", ""))
    assert load_webhook(path, lambda _reference: ("long-enough-0123", "")).secrets == (b"long-enough-0123",)


def test_folder_without_files_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no webhooks"):
        load_webhooks(tmp_path)
