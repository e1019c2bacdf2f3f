"""Who sends: a signature over what is signed and nothing else, or a bearer."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.signals.webhook.language import HmacAuth
from gateway.signals.webhook.loader import WebhookPeer
from gateway.signals.webhook.signing import Proven, Unproven, proof
from tests.signals.webhook.builders import AXLE, AXLE_SECRET, BEARER, VOLTUS, lowered, signed

BODY = b'{"event_id": "e"}'
AT_S = 1_900_000_000


def why(peer: WebhookPeer, headers: dict[str, str], body: bytes = BODY) -> str:
    found = proof(peer, lowered(headers), body)
    assert isinstance(found, Unproven)
    return found.why


def test_signature_over_time_and_body_proves_both() -> None:
    found = proof(AXLE, lowered(signed(BODY, AT_S)), BODY)
    assert isinstance(found, Proven)
    assert found.issued_ms == AT_S * 1_000
    assert "wrong" in why(AXLE, signed(BODY, AT_S), BODY + b" ")
    assert "wrong" in why(AXLE, signed(BODY, AT_S) | {"X-Axle-Timestamp": str(AT_S + 1)})
    assert "wrong" in why(AXLE, signed(BODY, AT_S, b"another secret here"))


@pytest.mark.parametrize(
    ("change", "told"),
    [({"X-Axle-Signature": ""}, "no signature"), ({"X-Axle-Signature": "zz"}, "no signature"),
     ({"X-Axle-Signature": "ab" * 31}, "no signature"), ({"X-Axle-Timestamp": ""}, "a time in epoch_s"),
     ({"X-Axle-Timestamp": "-5"}, "a time in epoch_s"), ({"X-Axle-Timestamp": "1e9"}, "a time in epoch_s"),
     ({"X-Axle-Timestamp": "9" * 17}, "a time in epoch_s")],
)  # fmt: skip
def test_header_that_is_not_as_the_file_says_proves_nothing(change: dict[str, str], told: str) -> None:
    assert told in why(AXLE, signed(BODY, AT_S) | change)


def test_header_that_stands_twice_proves_nothing() -> None:
    headers = lowered(signed(BODY, AT_S))
    headers["x-axle-signature"] *= 2
    assert isinstance(proof(AXLE, headers, BODY), Unproven)


def test_message_is_known_again_by_what_is_signed_alone() -> None:
    def of(headers: dict[str, str], body: bytes = BODY) -> str | None:
        found = proof(AXLE, lowered(headers), body)
        assert isinstance(found, Proven)
        return found.message_id

    first = signed(BODY, AT_S)
    assert of(first) == of(first | {"X-Other": "1", "X-Axle-Signature": first["X-Axle-Signature"].upper()})
    assert of(first) != of(signed(BODY, AT_S + 1))


def test_former_secret_proves_while_one_replaces_the_other() -> None:
    both = WebhookPeer(document=AXLE.document, secrets=(b"the new secret 0123", AXLE_SECRET))
    for secret in both.secrets:
        assert isinstance(proof(both, lowered(signed(BODY, AT_S, secret)), BODY), Proven)


def test_signature_in_base64_with_a_prefix_over_the_body_alone() -> None:
    auth = HmacAuth.model_validate(
        {"kind": "hmac_sha256", "secret": "env:X", "header": "Sig", "encoding": "base64", "prefix": "v1="}
    )
    peer = WebhookPeer(document=AXLE.document.model_copy(update={"auth": auth}), secrets=(AXLE_SECRET,))
    text = base64.b64encode(hmac.new(AXLE_SECRET, BODY, hashlib.sha256).digest()).decode()
    # without a time, a repetition cannot be told from the same message sent anew
    assert proof(peer, {"sig": [f"v1={text}"]}, BODY) == Proven(message_id=None, issued_ms=None)
    assert isinstance(proof(peer, {"sig": [text]}, BODY), Unproven)


def test_bearer_proves_and_another_does_not() -> None:
    assert proof(VOLTUS, lowered(BEARER), BODY) == Proven(message_id=None, issued_ms=None)
    for shown in ("", "Bearer", "Bearer x", f"Basic {BEARER['Authorization'][7:]}", f"{BEARER['Authorization']}x"):
        assert "bearer token" in why(VOLTUS, {"Authorization": shown})


@given(
    headers=st.dictionaries(
        st.sampled_from(["x-axle-signature", "x-axle-timestamp", "authorization"]),
        st.lists(st.text(max_size=80), max_size=2), max_size=3,
    ),
    body=st.binary(max_size=40),
)  # fmt: skip
def test_whatever_is_shown_proves_nothing(headers: dict[str, list[str]], body: bytes) -> None:
    assert isinstance(proof(AXLE, headers, body), Unproven)
    assert isinstance(proof(VOLTUS, headers, body), Unproven)
