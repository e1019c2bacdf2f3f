"""Reads webhook files and reports every fault with file, line and path."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gateway.domain.errors import InvalidInput
from gateway.signals.webhook.language import WebhookDocument
from gateway.yaml_lines import Loc, NotStrict, Place, bounded, fault_line, read_file, read_yaml

ReadSecret = Callable[[str], tuple[str | None, str]]
"""The secret behind a reference, or None and why not."""

SECRET_MIN = 16
PEERS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookPeer:
    """A peer and its secrets, the present one first."""

    document: WebhookDocument
    secrets: tuple[bytes, ...]

    @property
    def name(self) -> str:
        return self.document.webhook


def parse_webhook(text: str, *, name: str) -> WebhookDocument:
    """Read one file from YAML; `name` is its name in messages. Raises InvalidInput with every fault, up to a bound, as
    `file:line: path: what is wrong`."""
    return _parse(text, name=name)[0]


def load_webhooks(directory: Path, read_secret: ReadSecret | None = None) -> dict[str, WebhookPeer]:
    """Every `*.yaml` in `directory`, by name; without `read_secret` they have no secrets. Raises InvalidInput with the
    faults of all files."""
    problems: list[str] = []
    loaded: dict[str, WebhookPeer] = {}
    paths = sorted(directory.glob("*.yaml"))
    if not paths:
        problems.append(f"{directory}: no webhooks (*.yaml) here")
    if len(paths) > PEERS_MAX:
        problems.append(f"{directory}: more than {PEERS_MAX} webhooks")
    for path in paths[:PEERS_MAX]:
        try:
            loaded[path.stem] = load_webhook(path, read_secret)
        except InvalidInput as error:
            problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return loaded


def load_webhook(path: Path, read_secret: ReadSecret | None = None) -> WebhookPeer:
    """Read one file, which is named after its peer. Raises InvalidInput with every fault."""
    name = path.name
    document, place = _parse(read_file(path).decode("utf-8"), name=name)
    faults: list[tuple[Loc, str]] = []
    if document.webhook != path.stem:
        faults.append((("webhook",), f"says {document.webhook!r}, the file is named {path.stem!r}"))
    found: list[bytes] = []
    for key in ("secret", "former_secret"):
        reference = getattr(document.auth, key)
        if reference is None or read_secret is None:
            continue
        secret, problem = read_secret(reference)
        if secret is None:
            faults.append((("auth", key), problem))
        elif len(secret) < SECRET_MIN:
            faults.append((("auth", key), f"shorter than {SECRET_MIN} characters"))
        else:
            found.append(secret.encode())
    if faults:
        raise InvalidInput(_told(name, place, faults))
    return WebhookPeer(document=document, secrets=tuple(found))


def _parse(text: str, *, name: str) -> tuple[WebhookDocument, Place]:
    try:
        raw, place = read_yaml(text)
    except NotStrict as error:
        raise InvalidInput([fault_line(name, error.line, "(document)", str(error))]) from error
    try:
        return WebhookDocument.model_validate(_lists_fixed(raw)), place
    except ValidationError as error:
        faults: list[tuple[Loc, str]] = []
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            faults += [(fault["loc"], words) for words in fault["msg"].removeprefix("Value error, ").splitlines()]
        raise InvalidInput(bounded(name, _told(name, place, faults))) from error


def _lists_fixed(raw: object) -> object:
    """Lists as tuples, which models that convert nothing want."""
    if isinstance(raw, dict):
        return {key: _lists_fixed(value) for key, value in raw.items()}
    if isinstance(raw, list):
        return tuple(map(_lists_fixed, raw))
    return raw


def _told(name: str, place: Place, faults: list[tuple[Loc, str]]) -> list[str]:
    return [
        fault_line(name, place.line_of(loc), ".".join(map(str, loc)) or "(document)", words) for loc, words in faults
    ]
