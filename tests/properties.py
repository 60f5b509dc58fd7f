"""The settings of property tests. Suites that contain some load this with their package.

None may fail because an example takes long: the machine may be busy.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
