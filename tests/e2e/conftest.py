"""The longest stories begin first, so that the lane ends when they do."""

import pytest

LONGEST = ("test_demo", "test_kill", "test_evening")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
