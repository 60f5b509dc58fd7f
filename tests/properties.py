"""How property tests run, for the suites that have any: they load this with their package.

None may fail for the time that an example takes: the machine may be busy with something else.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
