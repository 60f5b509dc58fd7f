"""Tests, by what they need: see docs/architecture.md.

No property test may fail for the time that an example takes: the machine may be busy with something else.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
