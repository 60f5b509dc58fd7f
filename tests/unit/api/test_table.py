"""The route table by itself."""

import inspect
import re

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from scheduler.api.app import make_app
from scheduler.api.context import Context, UnderWay
from scheduler.api.door import Door
from scheduler.api.errors import CORE_PATHS
from scheduler.api.problems import TYPES
from scheduler.api.quotas import Followers
from scheduler.api.routes import ANYWHERE, ROUTES, SUBMISSIONS
from scheduler.security.logins import FailedLogins
from scheduler.security.principals import Scope
from tests.doubles.authentication import TRUSTING

#: Types of problems that no route answers with: those of the router.
NO_ROUTE = {"method-not-allowed"}


class TableTests(SynchronousTestCase):
    def test_once(self) -> None:
        """Each method and path has only one row."""
        names = [route.name for route in ROUTES]
        self.assertEqual(len(names), len(set(names)))

    def test_handlers(self) -> None:
        """The names in a path are the parameters of the handler, after the call."""
        for route in ROUTES:
            self.assertEqual(
                list(inspect.signature(route.handler).parameters)[1:], re.findall("<(.*?)>", route.path), route.name
            )

    def test_problems(self) -> None:
        """The table has all types of problems except a few."""
        self.assertEqual({name for route in ROUTES for name in route.all_problems}, set(TYPES) - NO_ROUTE)
        for route in ROUTES:
            self.assertEqual(set(route.problems) & set(ANYWHERE), set(), route.name)
            self.assertEqual(len(route.problems), len(set(route.problems)), route.name)

    def test_scopes(self) -> None:
        """READ suffices for GET, but for tokens and the audit, and for no other method except ``POST /query``."""
        self.assertEqual(sorted(Scope), [Scope.OPEN, Scope.READ, Scope.RUN, Scope.ADMIN])
        for route in ROUTES:
            reads = route.method == "GET" and not route.path.startswith(("/v1/tokens", "/v1/audit"))
            self.assertEqual(route.scope <= Scope.READ, reads or route.path == "/query", route.name)
        self.assertEqual([route.path for route in ROUTES if route.scope is Scope.OPEN], ["/healthz", "/readyz"])

    def test_no_scope(self) -> None:
        """There is no app, and so no scheduler, with a route that has no scope."""
        door = Door(TRUSTING, FailedLogins(10, Clock().seconds))
        context = Context(None, door, Clock(), lambda: 0.0, UnderWay(), Followers(10))  # type: ignore[arg-type]
        for scope in (None, 0, "read"):
            routes = (*ROUTES, evolve(ROUTES[0], path="/new", scope=scope))
            error = self.assertRaises(ValueError, make_app, context, routes)
            self.assertEqual(str(error), "the route POST /new has no scope")
        make_app(context)

    def test_submissions(self) -> None:
        """Jobs are submitted by two routes."""
        self.assertEqual(SUBMISSIONS, {("POST", "/start"), ("POST", "/v1/jobs")})

    def test_core_paths(self) -> None:
        """The core routes are the routes for POST at the top level."""
        top = {route.path.encode() for route in ROUTES if route.method == "POST" and route.path.count("/") == 1}
        self.assertEqual(CORE_PATHS, top)
