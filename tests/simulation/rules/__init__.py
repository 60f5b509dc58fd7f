"""The rules of a run, by subject.

They judge in this order. The first broken rule ends the run, so rules about causes come before rules about effects.
"""

from __future__ import annotations

from tests.simulation.rules.agreement import Agreement
from tests.simulation.rules.answers import Answers
from tests.simulation.rules.backoff import Backoff
from tests.simulation.rules.checked import Checked
from tests.simulation.rules.core import CoreWorkers
from tests.simulation.rules.departed import Departed
from tests.simulation.rules.durable import Durable
from tests.simulation.rules.expected import Expected
from tests.simulation.rules.indexed import Indexed
from tests.simulation.rules.kept import Kept
from tests.simulation.rules.leftovers import Leftovers
from tests.simulation.rules.output import Output
from tests.simulation.rules.placed import Placed
from tests.simulation.rules.recorded import Recorded
from tests.simulation.rules.rule import Rule
from tests.simulation.rules.stops import Stops
from tests.simulation.rules.truth import Truth
from tests.simulation.rules.workers import Workers

RULES: tuple[type[Rule], ...] = (
    Kept,
    Truth,
    Placed,
    Backoff,
    Durable,
    Indexed,
    Agreement,
    Departed,
    Workers,
    Expected,
    Answers,
    Output,
    CoreWorkers,
    Stops,
    Leftovers,
    Recorded,
    Checked,
)
