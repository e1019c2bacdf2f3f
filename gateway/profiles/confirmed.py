"""What others confirm of a profile: which canonical quantity a client library or a published sample would see wrong.

File `confirmed.json` beside the profiles: profile -> quantity -> mistake (a sign, scale, word order or address) -> who
notices it, a client library with its version or the name of a sample. Quantities that a product lacks are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from gateway.domain.errors import InvalidInput

FILE = "confirmed.json"
Mistakes = Mapping[str, list[str]]
Confirmed = Mapping[str, Mapping[str, Mistakes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """One quantity: `by` whom, and the mistakes in it that nobody would notice. Without such it is confirmed."""

    by: tuple[str, ...]
    unnoticed: tuple[str, ...]

    @property
    def confirmed(self) -> bool:
        return bool(self.by) and not self.unnoticed


def confirmation_of(mistakes: Mistakes) -> Confirmation:
    """What the mistakes in a quantity and those who notice them come to."""
    return Confirmation(
        by=tuple(dict.fromkeys(name for names in mistakes.values() for name in names)),
        unnoticed=tuple(mistake for mistake, names in mistakes.items() if not names),
    )


def load_confirmed(directory: Path) -> Confirmed:
    """What the file beside the profiles says; nothing where there is none. Raises InvalidInput."""
    try:
        found: Confirmed = orjson.loads((directory / FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise InvalidInput([f"{directory / FILE}: cannot be read: {error}"]) from error
    return found
