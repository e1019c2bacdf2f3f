"""What was heard of sign-ups outlives the process, each word once, and within bounds."""

from pathlib import Path

import pytest

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.sign_ups import HeardWord
from gateway.storage.programs.sign_ups import SqliteSignUps


def word(word: str, reference: str = "c-1", utility: str = "", at_ms: int = 1) -> HeardWord:
    return HeardWord(reference=reference, utility=utility, word=word, first_ms=at_ms)


async def test_word_is_kept_once_with_when_it_was_heard_first(tmp_path: Path) -> None:
    async with SqliteSignUps(tmp_path) as store:
        assert await store.note(word("CREATED", at_ms=5))
        assert not await store.note(word("CREATED", at_ms=9))
        assert await store.note(word("CREATED", utility="PGE", at_ms=9))
    async with SqliteSignUps(tmp_path) as store:
        assert await store.of(["c-1", "c-2"]) == [word("CREATED", at_ms=5), word("CREATED", utility="PGE", at_ms=9)]
        assert await store.references("", 10) == ["c-1"]
        assert await store.references("c-1", 10) == []


async def test_reference_has_no_more_words_than_its_bound(tmp_path: Path) -> None:
    async with SqliteSignUps(tmp_path, words_max=2) as store:
        await store.note(word("A"))
        await store.note(word("B"))
        with pytest.raises(InvalidInput):
            await store.note(word("C"))
        assert not await store.note(word("A"))
        assert await store.note(word("C", reference="c-2"))
