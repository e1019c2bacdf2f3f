"""Pages of an ordered list that grows while it is read, behind opaque tokens.

A page goes on after the key of the entry that ended the last one, so whatever was in the list all along is sent exactly
once. A token is good for as often as it is sent, with the filters it was made for; that a token fixes them is not
public [?].
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from simulators.aggregator.refusal import Refused

TOKENS_MAX = 100_000
Key = tuple[Any, ...]
Entry = TypeVar("Entry")


class _Place(NamedTuple):
    what: str
    filters: str
    after: Key


class Tokens:
    """The newest places that were handed out."""

    def __init__(self, issue: Callable[[], str] = lambda: secrets.token_urlsafe(24)) -> None:
        self._new = issue
        self._places: OrderedDict[str, _Place] = OrderedDict()

    def page(
        self, what: str, filters: str, token: str | None, size: int, entries: Iterable[tuple[Key, Entry]]
    ) -> tuple[list[Entry], str | None]:
        """Up to `size` of `entries` (by ascending key) after the token's place, and the token of what is left."""
        after = self._after(what, filters, token)
        page: list[Entry] = []
        last: Key = ()
        for key, entry in entries:
            if after is not None and key <= after:
                continue
            if len(page) == size:
                return page, self._issue(_Place(what, filters, last))
            page.append(entry)
            last = key
        return page, None

    def offset_page(
        self, what: str, filters: str, token: str | None, size: int, entries: Iterable[tuple[Key, Entry]]
    ) -> tuple[list[Entry], str | None]:
        """The same by counting: what is put in front of the place comes twice, what is taken away hides another."""
        after = self._after(what, filters, token)
        first = int(after[0]) if after else 0
        listed = [entry for _, entry in entries]
        more = len(listed) > first + size
        return listed[first : first + size], self._issue(_Place(what, filters, (first + size,))) if more else None

    def _after(self, what: str, filters: str, token: str | None) -> Key | None:
        if token is None:
            return None
        place = self._places.get(token)
        if place is None or place.what != what:
            raise Refused(400, "page_token is not known", page_token=token)
        if place.filters != filters:
            raise Refused(400, "page_token belongs to other filters", page_token=token)
        return place.after

    def _issue(self, place: _Place) -> str:
        token = self._new()
        self._places[token] = place
        while len(self._places) > TOKENS_MAX:
            self._places.popitem(last=False)
        return token
