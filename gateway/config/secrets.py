"""Secrets by reference: `env:NAME` or `file:/path`."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from gateway.domain.errors import InvalidInput, Retry

BYTES_MAX = 64 << 10
PATTERN = r"^(env|file):.+$"
_REFERENCE = re.compile(r"^(env|file):(.+)$")


class SecretsMissing(InvalidInput):
    """Files of secrets cannot be read now, and nothing else is wrong: the same configuration may do later."""

    retry = Retry.LATER


def resolve_secret(reference: str) -> str:
    """The secret behind a reference. Raises InvalidInput."""
    secret, problem = read_secret(reference)
    if secret is None:
        raise InvalidInput([f"secret: {problem}"])
    return secret


def read_secret(reference: object) -> tuple[str | None, str]:
    """The secret behind a reference, or None and why not. Never repeats what may be a secret."""
    found = _REFERENCE.match(reference) if isinstance(reference, str) else None
    if found is None:
        return None, "write a reference, env:NAME or file:/path, not the secret itself"
    kind, name = found.groups()
    if kind == "env":
        return os.environ.get(name) or None, f"the environment variable {name} is not set"
    path = Path(name)
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return None, f"{name} can be read by others; chmod 600"
        return path.read_text(encoding="utf-8").strip() or None, f"{name} is empty"
    except (OSError, ValueError) as error:
        return None, f"{name} cannot be read: {error}"


def unfit(reference: str) -> str | None:
    """Why a reference must not be read while the gateway runs, None = it may be. A pipe would stop it."""
    if not reference.startswith("file:"):
        return None
    path = Path(reference.removeprefix("file:"))
    try:
        found = path.stat()
    except (OSError, ValueError):
        # reading it says why
        return None
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no file"
    return f"{path} is larger than {BYTES_MAX} bytes" if found.st_size > BYTES_MAX else None


def is_one_of(reference: str, others: Iterable[str]) -> bool:
    """Whether a reference leads to the same secret as another one, by whatever names."""
    return any(_same(reference, other) for other in others)


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    if not (one.startswith("file:") and other.startswith("file:")):
        return False
    here, there = one.removeprefix("file:"), other.removeprefix("file:")
    try:
        return os.path.realpath(here) == os.path.realpath(there) or os.path.samefile(here, there)
    except (OSError, ValueError):
        return False
