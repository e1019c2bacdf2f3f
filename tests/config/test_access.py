"""The file of callers: what it may say, every fault with its line, and whom it lets in."""

import hashlib
import hmac
import json
import os
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.utils import base64url_encode

from gateway.api.access.callers import Callers
from gateway.config.access import load_access
from gateway.domain.access import Caller, DoorRefusal, Scope
from gateway.domain.errors import InvalidInput

TOKEN = "a-long-and-random-token"
HASH = "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()
ISSUER, AUDIENCE = "https://id.example", "gateway"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
KEYS: dict[str, Key] = {
    "RS256": rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def file_of(directory: Path, text: str) -> Path:
    path = directory / "access.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(directory: Path, text: str) -> list[str]:
    """What is wrong, without the path."""
    path = file_of(directory, text)
    with pytest.raises(InvalidInput) as caught:
        load_access(path)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def test_file_lets_in_whom_it_names_with_their_scopes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_TOKEN", "another-long-random-token")
    secret = tmp_path / "room"
    secret.write_text("the-next-token-of-the-room\n", encoding="utf-8")
    secret.chmod(0o600)
    found = load_access(
        file_of(
            tmp_path,
            f"""
callers:
  room: {{scopes: [read, dispatch], tokens: ["{HASH}", "file:{secret}"], requests_per_min: 60}}
  desk: {{scopes: [money], tokens: ["env:DESK_TOKEN"], certificate: desk.example}}
""",
        )
    )
    callers = found.callers
    room, desk = callers.who(bearer(TOKEN)), callers.who(bearer("another-long-random-token"))
    assert isinstance(room, Caller)
    assert (room.name, room.scopes, room.requests_per_min) == ("room", frozenset({Scope.READ, Scope.DISPATCH}), 60)
    assert callers.who(bearer("the-next-token-of-the-room")) == room
    assert isinstance(desk, Caller)
    assert desk == callers.who(b"", "desk.example")
    for other in (b"", bearer("wrong"), bearer(HASH), b"Basic " + TOKEN.encode()):
        assert isinstance(callers.who(other), DoorRefusal)
    assert set(found.files) == {tmp_path / "access.yaml", secret}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("callers: {a: {scopes: [read]}}", "1: callers.a: a caller has at least one token or a certificate"),
        (
            "callers:\n  a:\n    scopes: [reed]\n    certificate: a\n",
            "3: callers.a.scopes.0: Input should be 'read', 'dispatch', 'devices', ",
        ),
        ("callers: {a: {scopes: [read], tokens: [plain-text-token]}}",
         "1: callers.a.tokens.0: write sha256: and the hash, or a reference"),
        ("callers: {a: {scopes: [read], tokens: ['env:NOT_SET']}}",
         "1: callers.a.tokens.0: the environment variable NOT_SET is not set"),
        ("callers: {a: {scopes: [read], tokens: ['env:SHORT']}}", "1: callers.a.tokens.0: shorter than 16 characters"),
        ("callers: {a: {scopes: [read], tokens: ['file:/nowhere/at/all']}}",
         "1: callers.a.tokens.0: /nowhere/at/all cannot be read: "),
        ("callers: {a: {scopes: [read], tokens: ['file:/dev/zero']}}", "1: callers.a.tokens.0: /dev/zero is no file"),
        ("callers: {a: {scope: [read], certificate: a}}", "1: callers.a.scope: unknown key; did you mean scopes?"),
        ("callers: {}", "1: callers: nobody could ask anything: name a caller, or where JWTs come from"),
        (f"callers:\n  a: {{scopes: [read], tokens: ['{HASH}']}}\n  b: {{scopes: [pay], tokens: ['{HASH}']}}\n",
         "3: callers.b.tokens.0: this token stands twice"),
        ("callers:\n  a: {scopes: [read], certificate: x}\n  b: {scopes: [pay], certificate: x}\n",
         "3: callers.b.certificate: another caller has it"),
        ("callers: [a]", "1: callers: Input should be a valid dictionary"),
        ("callers: {mqtt: {scopes: [read], certificate: x}}", "1: callers.mqtt: the gateway uses this name itself"),
        ("callers: {owner: {scopes: [read], certificate: x}}", "1: callers.owner: the gateway uses this name itself"),
        ('callers: {a: {scopes: [read], tokens: ["file:/a\\0b"]}}', "1: callers.a.tokens.0: /a\0b cannot be read: "),
        ('jwt: {algorithm: ES256, keys: "a\\0b", issuer: i, audience: a, scopes: [read]}',
         "1: jwt.keys: cannot be read: "),
        ("callers: {A B: {scopes: [read], certificate: x}}", "1: callers.A B"),
        ("{", "2: not YAML"),
    ],
)  # fmt: skip
def test_file_with_a_fault_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setenv("SHORT", "short")
    found = faults(tmp_path, text)
    assert any(problem.startswith(told) for problem in found), found
    assert "plain-text-token" not in "".join(found)


def test_file_tells_every_fault_at_once(tmp_path: Path) -> None:
    text = "callers:\n  a: {scopes: [read]}\n  b: {scopes: [read], tokens: [x]}\njwt: {algorithm: ES256, keys: no.json"
    found = faults(tmp_path, f"{text}, issuer: i, audience: a, scopes: [read]}}\n")
    assert [problem.split(": ")[1] for problem in found] == ["callers.a", "callers.b.tokens.0", "jwt.keys"]


def test_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN, encoding="utf-8")
    secret.chmod(0o644)
    (found,) = faults(tmp_path, f"callers: {{a: {{scopes: [read], tokens: ['file:{secret}']}}}}")
    assert "can be read by others" in found
    assert TOKEN not in found


# -- JWT -----------------------------------------------------------------------------------------------------


def key_set(*keys: tuple[str, str, Key], **other: object) -> str:
    """A key set of such (kid, algorithm, key), as public keys."""
    out = []
    for kid, algorithm, key in keys:
        made: Any = jwt.algorithms.get_default_algorithms()[algorithm]
        out.append(json.loads(made.to_jwk(key.public_key())) | {"kid": kid} | other)
    return json.dumps({"keys": out})


def with_jwt(directory: Path, algorithm: str, keys: str, scopes: str = "read, dispatch") -> Callers:
    (directory / "jwks.json").write_text(keys, encoding="utf-8")
    text = f"jwt: {{algorithm: {algorithm}, keys: jwks.json, issuer: '{ISSUER}', audience: {AUDIENCE}, "
    text += f"scopes: [{scopes}]}}"
    return load_access(file_of(directory, text)).callers


def signed(key: Key | None, algorithm: str, kid: str = "k", **claims: Any) -> bytes:
    body: dict[str, Any] = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "scope": "read pay", "exp": int(time.time()) + 600,
    } | claims  # fmt: skip
    told = {name: value for name, value in body.items() if value is not None}
    return bearer(jwt.encode(told, "" if key is None else key, algorithm=algorithm, headers={"kid": kid}))


@pytest.mark.parametrize("algorithm", KEYS)
def test_jwt_names_its_holder_with_the_scopes_that_its_issuer_may_give(tmp_path: Path, algorithm: str) -> None:
    callers = with_jwt(tmp_path, algorithm, key_set(("k", algorithm, KEYS[algorithm])))
    caller = callers.who(signed(KEYS[algorithm], algorithm))
    assert isinstance(caller, Caller)
    assert (caller.name, caller.scopes) == ("anna", frozenset({Scope.READ}))


def test_jwt_does_not_name_a_caller_of_the_file(tmp_path: Path) -> None:
    """Its issuer would else speak for it: in the trail, for its events, by its bounds."""
    (tmp_path / "jwks.json").write_text(key_set(("k", "ES256", KEYS["ES256"])), encoding="utf-8")
    text = f"callers: {{room: {{scopes: [read], tokens: ['{HASH}']}}}}\njwt: {{algorithm: ES256, keys: jwks.json, "
    text += f"issuer: '{ISSUER}', audience: {AUDIENCE}, scopes: [read]}}"
    callers = load_access(file_of(tmp_path, text)).callers
    assert isinstance(callers.who(signed(KEYS["ES256"], "ES256", sub="room")), DoorRefusal)
    for name in ("anna", "Anna@example.com", "auth0|5f7c", "system:serviceaccount:grid:desk"):
        caller = callers.who(signed(KEYS["ES256"], "ES256", sub=name))
        assert isinstance(caller, Caller)
        assert caller.name == name


def shared(secret: bytes) -> bytes:
    """A token whose signer took the public key for a shared secret (the library makes none)."""
    body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "scope": "read", "exp": int(time.time()) + 600}
    parts = [base64url_encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "k"}, body)]
    text = b".".join(parts)
    return b"Bearer " + text + b"." + base64url_encode(hmac.digest(secret, text, "sha256"))


OTHER = ec.generate_private_key(ec.SECP256R1())
NOW = int(time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 3_600}, {"exp": None}, {"iss": "https://other.example"}, {"iss": None}, {"aud": "another"},
        {"aud": None}, {"sub": None}, {"sub": ""}, {"sub": "x" * 65}, {"scope": None}, {"nbf": NOW + 3_600},
        {"scope": 7}, {"exp": "soon"}, {"sub": "a\0b"}, {"sub": "room: anna"}, {"sub": "a/b"}, {"sub": "anna\n"},
        {"sub": "mqtt"}, {"sub": "owner"}, {"sub": "\ud800"},
    ],
)  # fmt: skip
def test_jwt_that_lacks_what_is_required_or_is_not_valid_now_is_nobody_s(
    tmp_path: Path, claims: dict[str, Any]
) -> None:
    callers = with_jwt(tmp_path, "ES256", key_set(("k", "ES256", KEYS["ES256"])))
    try:
        token = signed(KEYS["ES256"], "ES256", **claims)
    except TypeError:
        pytest.skip("the library makes no such token")
    assert isinstance(callers.who(token), DoorRefusal)


def test_jwt_of_another_key_or_algorithm_is_nobody_s(tmp_path: Path) -> None:
    keys = key_set(("k", "ES256", KEYS["ES256"]))
    callers = with_jwt(tmp_path, "ES256", keys)
    public = json.dumps(json.loads(keys)["keys"][0]).encode()
    for token in (
        signed(OTHER, "ES256"),
        signed(KEYS["ES256"], "ES256", kid="unknown"),
        signed(None, "none"),
        shared(public),
        signed(KEYS["RS256"], "RS256"),
        bearer("a.b.c"),
        bearer("." * 4),
        signed(KEYS["ES256"], "ES256")[:-2],
        signed(KEYS["ES256"], "ES256", sub="x" * 20_000),
    ):
        assert isinstance(callers.who(token), DoorRefusal)


@pytest.mark.parametrize(
    ("algorithm", "keys", "told"),
    [
        ("ES256", "no", "not a JSON Web Key Set"),
        ("ES256", "[" * 100_000, "not a JSON Web Key Set"),
        ("ES256", '{"keys": []}', "at least one"),
        ("ES256", key_set(("k", "RS256", KEYS["RS256"])), "keys.0.kty: ES256 needs EC"),
        ("ES256", key_set(("k", "ES256", KEYS["ES256"]), ("k", "ES256", OTHER)), "keys.1.kid: another key has it"),
        ("ES256", key_set(("k", "ES256", KEYS["ES256"]), d="x"), "a private or shared key"),
        ("ES256", key_set(("k", "ES384", ec.generate_private_key(ec.SECP384R1()))), "the curve P-256"),
        ("RS256", key_set(("k", "RS256", rsa.generate_private_key(public_exponent=65_537, key_size=1_024))),  # noqa: S505 (it is refused)
         "an RSA key of 1024 bits; at least 2048"),
    ],
)  # fmt: skip
def test_key_set_with_a_fault_is_refused(tmp_path: Path, algorithm: str, keys: str, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        with_jwt(tmp_path, algorithm, keys)
    assert told in caught.value.problems[0]


def test_algorithm_with_a_shared_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        with_jwt(tmp_path, "HS256", "{}")
    assert "jwt.algorithm" in caught.value.problems[0]


def test_file_is_no_place_for_what_a_process_may_not_open(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (found,) = faults(tmp_path, f"callers: {{a: {{scopes: [read], tokens: ['file:{pipe}']}}}}")
    assert "is no file" in found
