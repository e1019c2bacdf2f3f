"""Reads JWTs: one algorithm, one issuer, one audience, keys from a file; nothing of a token is believed before its
signature is (RFC 7519, RFC 8725: no algorithm is taken from the token, expiry is required)."""

import json
import re
from collections.abc import Mapping
from typing import Any

import jwt
from jwt.types import Options

from gateway.domain.access import NOBODYS_NAMES, Caller, DoorRefusal, Scope
from gateway.domain.errors import InvalidInput

ALGORITHMS = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""Each with the type of its keys."""
RSA_BITS_MIN = 2048
LEEWAY_S = 30
BYTES_MAX = 8 << 10
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:-]{0,63}")
"""Of a holder: it stands in ids of events and in the trail."""


def read_keys(text: bytes, algorithm: str) -> dict[str, Any]:
    """The public keys of a JSON Web Key Set by their `kid`. Raises InvalidInput with what is wrong with any of them."""
    try:
        body = json.loads(text)
        entries = body["keys"]
        entries = [dict(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(["not a JSON Web Key Set: an object with a list `keys`"]) from error
    keys: dict[str, Any] = {}
    faults = []
    for i, entry in enumerate(entries):
        where, kid = f"keys.{i}", entry.get("kid")
        if not isinstance(kid, str) or not kid:
            faults.append(f"{where}.kid: required")
        elif kid in keys:
            faults.append(f"{where}.kid: another key has it")
        elif entry.get("kty") != ALGORITHMS[algorithm]:
            faults.append(f"{where}.kty: {algorithm} needs {ALGORITHMS[algorithm]}")
        elif any(name in entry for name in ("d", "k")):
            faults.append(f"{where}: a private or shared key; only public ones belong here")
        else:
            problem = _add(keys, kid, entry, algorithm)
            faults += [f"{where}: {problem}"] if problem else []
    if not keys and not faults:
        faults.append("keys: at least one")
    if faults:
        raise InvalidInput(faults)
    return keys


def _add(keys: dict[str, Any], kid: str, entry: Mapping[str, Any], algorithm: str) -> str:
    """Take a key; returns what is wrong with it, or ""."""
    try:
        key = jwt.PyJWK(dict(entry), algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        return f"not a key: {error}"
    if algorithm == "ES256" and entry.get("crv") != "P-256":
        return "ES256 needs the curve P-256"
    if ALGORITHMS[algorithm] == "RSA" and key.key_size < RSA_BITS_MIN:
        return f"an RSA key of {key.key_size} bits; at least {RSA_BITS_MIN}"
    keys[kid] = key
    return ""


class Statements:
    """JWTs of one issuer. `scopes` are the most that any of them may give; a token names its own in `scope`, apart by
    spaces, and its holder in `sub`, which is none of the `others`. Each holder may ask `requests_per_min` times."""

    def __init__(
        self, keys: Mapping[str, Any], *, algorithm: str, issuer: str, audience: str, scopes: frozenset[Scope],
        others: frozenset[str], requests_per_min: int | None = None,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._algorithm = algorithm
        self._issuer = issuer
        self._audience = audience
        self._scopes = scopes
        self._taken = others | NOBODYS_NAMES
        self._requests_per_min = requests_per_min

    def caller(self, token: bytes) -> Caller | DoorRefusal:
        """Whom a valid token names, or why it names nobody."""
        if len(token) > BYTES_MAX or token.count(b".") != 2:
            return DoorRefusal.UNKNOWN
        required: Options = {"require": ["exp", "iss", "aud", "sub"]}
        try:
            key = self._keys[str(jwt.get_unverified_header(token).get("kid"))]
            told = jwt.decode(
                token, key, algorithms=[self._algorithm], issuer=self._issuer, audience=self._audience,
                leeway=LEEWAY_S, options=required,
            )  # fmt: skip
        except jwt.ExpiredSignatureError:
            return DoorRefusal.EXPIRED
        except (jwt.PyJWTError, KeyError, ValueError):
            return DoorRefusal.UNKNOWN
        name, scope = told["sub"], told.get("scope")
        if not isinstance(name, str) or NAME.fullmatch(name) is None or name in self._taken:
            return DoorRefusal.UNKNOWN
        if not isinstance(scope, str):
            return DoorRefusal.UNKNOWN
        scopes = self._scopes & {Scope(word) for word in scope.split() if word in set(Scope)}
        return Caller(name=name, scopes=scopes, requests_per_min=self._requests_per_min)
