"""The file of callers: who may ask the gateway what. Read anew when it changes, so tokens are given, replaced and taken
away without a restart.

```yaml
callers:
  control-room:
    scopes: [read, dispatch]
    tokens: ["sha256:...", "file:/run/credentials/gateway/control-room"]   # two at once while one replaces the other
    requests_per_min: 600
  settlement:
    scopes: [read, money]
    certificate: settlement.example.com    # the common name of its client certificate
jwt:
  algorithm: ES256
  keys: jwks.json                          # beside this file
  issuer: https://id.example.com
  audience: battery-gateway
  scopes: [read]                           # the most that a token may give
  requests_per_min: 600                    # of each holder
```
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.api.access.callers import Callers, hash_of
from gateway.api.access.statements import Statements, read_keys
from gateway.config.faults import Loc, every_fault
from gateway.config.secrets import read_secret, unfit
from gateway.domain.access import NOBODYS_NAMES, Caller, Scope
from gateway.domain.errors import InvalidInput
from gateway.yaml_lines import NotStrict, Place, read_yaml

TOKEN_MIN = 16
HASHED = re.compile(r"sha256:([0-9a-f]{64})")
KEYS_BYTES_MAX = 1 << 18

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CallerModel(_Strict):
    """One caller: at least one token or a certificate. A token is `sha256:` with its hash, or a reference to it."""

    scopes: Annotated[frozenset[Scope], Field(min_length=1, examples=[["read"]])]
    tokens: Annotated[list[str], Field(max_length=8)] = []
    certificate: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    requests_per_min: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class JwtModel(_Strict):
    """Where JWTs come from."""

    algorithm: Annotated[Literal["RS256", "PS256", "ES256", "EdDSA"], Field(examples=["ES256"])]
    keys: Annotated[Path, Field(examples=["jwks.json"])]
    issuer: Annotated[str, Field(min_length=1, examples=["https://id.example"])]
    audience: Annotated[str, Field(min_length=1, examples=["gateway"])]
    scopes: Annotated[frozenset[Scope], Field(min_length=1, examples=[["read"]])]
    requests_per_min: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class AccessModel(_Strict):
    """The whole file."""

    callers: Annotated[dict[Name, CallerModel], Field(max_length=256)] = {}
    jwt: JwtModel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFile:
    """What a file said, and every file that this rests on: it is read anew when one of them changes."""

    callers: Callers
    files: tuple[Path, ...]


def load_access(path: Path) -> AccessFile:
    """Read and check the file, and what it refers to. Raises InvalidInput with every fault as `file:line: path: what is
    wrong`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput([f"{path}: cannot be read: {error}"]) from error
    try:
        raw, place = read_yaml(text)
    except NotStrict as error:
        raise InvalidInput([f"{path}:{error.line}: {error}"]) from error
    faults: list[tuple[Loc, str]] = []
    try:
        model = AccessModel.model_validate(raw)
    except ValidationError:
        faults = [(loc, words) for loc, _, words in every_fault(AccessModel, raw)]
        raise InvalidInput(_in_lines(path, place, faults)) from None
    reading = _Reading(path.resolve().parent)
    callers = reading.callers(model)
    if reading.faults:
        raise InvalidInput(_in_lines(path, place, reading.faults))
    return AccessFile(callers=callers, files=(path, *reading.files))


def _in_lines(path: Path, place: Place, faults: list[tuple[Loc, str]]) -> list[str]:
    told = sorted((place.line_of(loc), ".".join(map(str, loc)) or "(document)", words) for loc, words in faults)
    return [f"{path}:{line}: {where}: {words}" for line, where, words in told]


class _Reading:
    """Resolves what a file refers to, and collects what is wrong with it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.faults: list[tuple[Loc, str]] = []
        self.files: list[Path] = []

    def callers(self, model: AccessModel) -> Callers:
        tokens: list[tuple[bytes, Caller]] = []
        certificates: dict[str, Caller] = {}
        for name, given in model.callers.items():
            loc: Loc = ("callers", name)
            caller = Caller(name=name, scopes=given.scopes, requests_per_min=given.requests_per_min)
            if name in NOBODYS_NAMES:
                self.faults.append((loc, "the gateway uses this name itself"))
            if not given.tokens and given.certificate is None:
                self.faults.append((loc, "a caller has at least one token or a certificate"))
            for i, hashed in self._hashes(given.tokens, loc):
                if any(hashed == known for known, _ in tokens):
                    self.faults.append(((*loc, "tokens", i), "this token stands twice"))
                tokens.append((hashed, caller))
            if given.certificate is not None:
                if given.certificate in certificates:
                    self.faults.append(((*loc, "certificate"), "another caller has it"))
                certificates[given.certificate] = caller
        if not model.callers and model.jwt is None:
            self.faults.append((("callers",), "nobody could ask anything: name a caller, or where JWTs come from"))
        return Callers(
            tokens=tokens, certificates=certificates, statements=self._statements(model.jwt, frozenset(model.callers))
        )

    def _hashes(self, tokens: list[str], loc: Loc) -> Iterator[tuple[int, bytes]]:
        for i, token in enumerate(tokens):
            hashed = HASHED.fullmatch(token)
            if hashed is not None:
                yield i, bytes.fromhex(hashed[1])
                continue
            if token.startswith("file:"):
                self.files.append(Path(token.removeprefix("file:")))
            problem = unfit(token)
            secret, wrong = (None, problem) if problem else read_secret(token)
            if secret is None:
                told = wrong if token.startswith(("file:", "env:")) else "write sha256: and the hash, or a reference"
                self.faults.append(((*loc, "tokens", i), str(told)))
            elif len(secret) < TOKEN_MIN:
                self.faults.append(((*loc, "tokens", i), f"shorter than {TOKEN_MIN} characters"))
            else:
                yield i, hash_of(secret.encode())

    def _statements(self, model: JwtModel | None, others: frozenset[str]) -> Statements | None:
        if model is None:
            return None
        path = self._base / model.keys
        self.files.append(path)
        try:
            with path.open("rb") as file:
                keys: dict[str, Any] = read_keys(file.read(KEYS_BYTES_MAX), model.algorithm)
        except (OSError, ValueError) as error:
            self.faults.append((("jwt", "keys"), f"cannot be read: {error}"))
            return None
        except InvalidInput as error:
            self.faults += [(("jwt", "keys"), f"{path.name}: {problem}") for problem in error.problems]
            return None
        return Statements(
            keys, algorithm=model.algorithm, issuer=model.issuer, audience=model.audience, scopes=model.scopes,
            others=others, requests_per_min=model.requests_per_min,
        )  # fmt: skip
