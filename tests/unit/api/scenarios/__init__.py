"""All scenarios of the HTTP API."""

from tests.unit.api.scenarios.audit import AuditScenarios
from tests.unit.api.scenarios.base import NOW, Reply
from tests.unit.api.scenarios.core import CoreScenarios
from tests.unit.api.scenarios.jobs import JobScenarios
from tests.unit.api.scenarios.keys import KeyScenarios
from tests.unit.api.scenarios.output import OutputScenarios
from tests.unit.api.scenarios.submitting import SubmissionScenarios
from tests.unit.api.scenarios.table import TableScenarios
from tests.unit.api.scenarios.workers import WorkerScenarios

__all__ = ["NOW", "Reply", "RouteScenarios"]


class RouteScenarios(
    CoreScenarios,
    KeyScenarios,
    SubmissionScenarios,
    JobScenarios,
    OutputScenarios,
    WorkerScenarios,
    AuditScenarios,
    TableScenarios,
):
    """The scenarios of all routes."""
