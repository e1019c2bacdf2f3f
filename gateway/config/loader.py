"""Loads the configuration: one strict YAML file. Every fault is reported at once, with its line and path."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway import former_names
from gateway.config.durations import duration_s, hint
from gateway.config.faults import Loc, every_fault, inside
from gateway.config.programs import moved_programs
from gateway.config.secrets import SecretsMissing, read_secret
from gateway.config.settings import HttpSettings, Settings, SinkSettings
from gateway.domain.errors import InvalidInput
from gateway.yaml_lines import NotStrict, Place, read_yaml

SECRET_KEYS = frozenset({"token", "password", "key", "secret", "personal_key", "former_personal_key"})
KEY_FILES = frozenset({"key_file"})
STAND_IN = "a-secret-that-cannot-be-read"
"""Stands for a secret that has a fault, so that nothing else is wrong because of it."""

Fault = tuple[Loc, str]


def load_settings(path: Path) -> Settings:
    """Read and check the file. Raises InvalidInput with every fault as `file:line: path: what is wrong`; SecretsMissing
    where they are files of secrets alone."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput([f"{path}: cannot be read: {error}"]) from error
    try:
        raw, place = read_yaml(text)
    except NotStrict as error:
        raise InvalidInput([f"{path}:{error.line}: {error}"]) from error
    faults: list[Fault] = []
    moved = moved_programs(_resolve(raw, (), faults))
    resolved = moved.document
    faults += moved.faults
    faults += [(loc, _contradiction(raw, loc, there, place)) for loc, there in moved.contradicted.items()]
    try:
        settings = Settings.model_validate(resolved)
    except ValidationError:
        found = [(moved.place(loc), kind, words) for loc, kind, words in every_fault(Settings, resolved)]
        faults += [
            (loc, _words(raw, loc, kind, words))
            for loc, kind, words in found
            if not any(loc[: len(known)] == known for known, _ in faults)
        ]
        settings = None
    if settings is None or faults:
        told = sorted((place.line_of(loc), ".".join(map(str, loc)) or "(document)", words) for loc, words in faults)
        problems = [f"{path}:{line}: {where}: {words}" for line, where, words in told]
        raise SecretsMissing(problems) if all(_is_file(raw, loc) for loc, _ in faults) else InvalidInput(problems)
    base = path.resolve().parent
    settings.devices.keep_own(_own_secrets(raw, base))
    former = [
        f"{path}:{place.line_of(loc)}: {'.'.join(map(str, loc))}: {words}"
        for loc, words in (*former_names.used(raw, former_names.CONFIGURATION), *moved.former)
    ]
    return settings.model_copy(
        update={
            "state_dir": base / settings.state_dir,
            "profiles_dir": base / settings.profiles_dir,
            "http": _http_based(settings.http, base),
            "programs_dir": None if settings.programs_dir is None else base / settings.programs_dir,
            "webhooks_dir": None if settings.webhooks_dir is None else base / settings.webhooks_dir,
            "sinks": [_based(sink, base) for sink in settings.sinks],
        }
    ).with_former(former)


def _value(raw: object, loc: Loc) -> object:
    """The value at a path of the file."""
    for part in loc:
        raw = inside(raw, part)
    return raw


def _is_file(raw: object, loc: Loc) -> bool:
    """Whether what has a fault is a file that holds a secret."""
    return bool(loc) and loc[-1] in SECRET_KEYS and str(_value(raw, loc)).startswith("file:")


def _contradiction(raw: object, loc: Loc, there: Loc, place: Place) -> str:
    """What is wrong with a former key beside the new one that says something else."""
    return (
        f"it is {_value(raw, loc)} here and {_value(raw, there)} on line {place.line_of(there)}"
        f" ({'.'.join(map(str, there))}); keep that one alone"
    )


def _words(raw: object, loc: Loc, kind: str, words: str) -> str:
    """What is wrong, in the words that help most."""
    value = _value(raw, loc)
    if isinstance(value, str) and loc and str(loc[-1]).endswith("_s") and duration_s(value) is value:
        return hint(value)
    return former_names.refusal(loc, kind, former_names.CONFIGURATION) or words


def _http_based(http: HttpSettings, base: Path) -> HttpSettings:
    """The interface's settings with its paths relative to `base`."""
    tls, access = http.tls, http.access
    if tls is not None:
        tls = tls.model_copy(
            update={
                "certificate": base / tls.certificate,
                "key_file": base / tls.key_file,
                "client_ca": None if tls.client_ca is None else base / tls.client_ca,
            }
        )
    return http.model_copy(update={"tls": tls, "access": None if access is None else base / access})


def _based(sink: SinkSettings, base: Path) -> SinkSettings:
    """A sink's settings with its paths relative to `base`."""
    if sink.kind == "leap_csv":
        sftp = sink.sftp
        if sftp is not None and sftp.key_file is not None:
            sftp = sftp.model_copy(update={"key_file": base / sftp.key_file})
        return sink.model_copy(update={"meters": base / sink.meters, "sftp": sftp})
    if sink.kind == "parquet":
        return sink.model_copy(update={"directory": base / sink.directory})
    return sink


def _resolve(raw: Any, loc: Loc, faults: list[Fault]) -> Any:
    """Read secret references (a secret in plain text is a fault) and durations (keys that end in `_s`)."""
    if isinstance(raw, list):
        return [_resolve(item, (*loc, i), faults) for i, item in enumerate(raw)]
    if not isinstance(raw, dict):
        return raw
    out: dict[str, Any] = {}
    for key, value in raw.items():
        if key in SECRET_KEYS and value is not None:
            secret, problem = read_secret(value)
            if secret is None:
                faults.append(((*loc, key), problem))
            out[key] = STAND_IN if secret is None else secret
        elif key.endswith("_s"):
            out[key] = duration_s(value)
        else:
            out[key] = _resolve(value, (*loc, key), faults)
    return out


def _own_secrets(raw: Any, base: Path) -> Iterator[str]:
    """References to the secrets and keys that the configuration itself uses."""
    if isinstance(raw, list):
        for item in raw:
            yield from _own_secrets(item, base)
    elif isinstance(raw, dict):
        for key, value in raw.items():
            if isinstance(value, str) and key in SECRET_KEYS:
                yield value
            elif isinstance(value, str) and key in KEY_FILES:
                # some of them are relative to the file, others to where the gateway was started
                yield f"file:{value}"
                yield f"file:{base / value}"
            else:
                yield from _own_secrets(value, base)
