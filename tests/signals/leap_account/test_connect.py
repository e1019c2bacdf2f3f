"""The link to a sign-up holds a reference and nothing else of a customer; webhooks about it are read strictly."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from gateway.domain.errors import InvalidInput
from gateway.signals.leap_account.connect import ConnectEvent, LeapConnectSettings, connect_event, link

CANARY = "Kanarie"


def test_link_holds_what_the_page_needs_and_the_reference() -> None:
    found = urlsplit(link(LeapConnectSettings(account="battery-maker"), "c-1042"))
    assert f"{found.scheme}://{found.netloc}" == "https://connect.leap.energy"
    assert parse_qs(found.query) == {
        "transmissionRegion": ["CAISO"], "variant": ["RESIDENTIAL"], "account": ["battery-maker"], "refId": ["c-1042"],
    }  # fmt: skip
    one = LeapConnectSettings(account="a", region="WECC_SW", program="SRP-RPO")
    assert parse_qs(urlsplit(link(one, "c-1")).query)["program"] == ["SRP-RPO"]


@pytest.mark.parametrize(
    "reference", [f"{CANARY}@example.org", f"{CANARY} Jane", "c/1", "c&x=1", "", "ab", "x" * 65, "é-1"]
)
def test_reference_that_may_say_who_the_customer_is_stands_in_no_link(reference: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        link(LeapConnectSettings(account="a"), reference)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://connect.leap.energy"}, {"url": "https://u@evil.example"}, {"url": "https://x/?a=1"},
        {"account": "a&refId=x"}, {"region": "MARS"}, {"variant": "RESIDENTIAL_AGREEMENTS_ONLY"}, {"extra": 1},
    ],
)  # fmt: skip
def test_page_that_is_configured_wrongly_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LeapConnectSettings.model_validate({"account": "a"} | wrong)


def body(**payload: Any) -> dict[str, Any]:
    return {"webhook_event_id": "1", "payload": payload}


def test_webhook_of_a_session_or_an_authorization_is_read() -> None:
    session = body(webhook_event_type="connect_session.updated", partner_reference="c-1", status="CREATED", more=1)
    assert connect_event(session) == ConnectEvent(reference="c-1", utility="", word="CREATED")
    at_utility = body(
        webhook_event_type="connect_session.authorization_updated", partner_reference="c-1", utility_name="PGE",
        status="A NEW-WORD",
    )  # fmt: skip
    assert connect_event(at_utility) == ConnectEvent(reference="c-1", utility="PGE", word="A NEW-WORD")


@pytest.mark.parametrize(
    "other", [None, [], "x", {}, {"payload": []}, body(webhook_event_type="meter.created"), body()]
)
def test_webhook_about_something_else_is_no_sign_up(other: Any) -> None:
    assert connect_event(other) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"partner_reference": f"{CANARY}@example.org"}, {"partner_reference": None}, {"status": None}, {"status": 7},
        {"status": f"<{CANARY}>"}, {"status": ""},
    ],
)  # fmt: skip
def test_sign_up_that_cannot_be_read_is_refused_and_repeated_nowhere(wrong: dict[str, Any]) -> None:
    usual = {"webhook_event_type": "connect_session.updated", "partner_reference": "c-1", "status": "CREATED"}
    with pytest.raises(InvalidInput) as refused:
        connect_event(body(**usual | wrong))
    assert CANARY not in str(refused.value)
