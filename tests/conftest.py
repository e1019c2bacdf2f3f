"""Settings that hold for every test."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "gateway",
    derandomize=True,
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("deep", parent=settings.get_profile("gateway"), max_examples=5000)
settings.load_profile(os.environ.get("GATEWAY_HYPOTHESIS", "gateway"))
