"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Machines that run tests are shared and slow at times: a slow example is no failure.
settings.register_profile("kumulus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kumulus")
