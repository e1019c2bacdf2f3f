"""Settings that hold for every test."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.depth import SEED

settings.register_profile(
    "gateway",
    derandomize=True,
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep", parent=settings.get_profile("gateway"), max_examples=5000, derandomize=False, print_blob=True
)
settings.register_profile("fresh", parent=settings.get_profile("gateway"), derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("GATEWAY_HYPOTHESIS", "gateway"))


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """A command narrows it for its whole process, which here is that of the next tests too."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def pytest_report_header() -> list[str]:
    """What a run with new cases has to be given to try the same ones again."""
    return (
        [f"seed of generated cases: {SEED}; the same target of make with SEED={SEED} tries them again"] if SEED else []
    )
