"""The settings of property tests. Suites that contain some load this with their package.

None may fail because an example takes long: the machine may be busy. The table of all characters, which takes seconds
to make, is kept in the checkout, beside the examples that failed; the suites run in folders that are new each time.
"""

from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(__file__).resolve().parent.parent / ".hypothesis")
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
