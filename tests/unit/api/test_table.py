"""The route table by itself."""

import inspect
import re

from twisted.trial.unittest import SynchronousTestCase

from scheduler.api.errors import CORE_PATHS
from scheduler.api.problems import TYPES
from scheduler.api.routes import ANYWHERE, ROUTES, SUBMISSIONS
from scheduler.security.principals import Scope

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
        """GET needs no more than READ, except for tokens, and no other method except ``POST /query`` is for readers."""
        self.assertEqual(sorted(Scope), [Scope.OPEN, Scope.READ, Scope.RUN, Scope.ADMIN])
        for route in ROUTES:
            reads = route.method == "GET" and not route.path.startswith("/v1/tokens")
            self.assertEqual(route.scope <= Scope.READ, reads or route.path == "/query", route.name)

    def test_submissions(self) -> None:
        """Jobs are submitted by two routes."""
        self.assertEqual(SUBMISSIONS, {("POST", "/start"), ("POST", "/v1/jobs")})

    def test_core_paths(self) -> None:
        """The core routes are the routes for POST at the top level."""
        top = {route.path.encode() for route in ROUTES if route.method == "POST" and route.path.count("/") == 1}
        self.assertEqual(CORE_PATHS, top)
