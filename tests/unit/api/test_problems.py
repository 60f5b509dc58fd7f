"""The types of problems: the code, the table and docs/problems.md have the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import scheduler
from scheduler import __version__, errors
from scheduler.api.errors import NOT_FOUND, PROBLEMS, ProblemError, submission_problem
from scheduler.api.problems import TYPES
from tests.unit.api.conversation import Server

PACKAGE = Path(scheduler.__file__).parent

DOCS = Path(__file__).resolve().parents[3] / "docs" / "problems.md"


def calls(folder: Path, *names: str) -> Iterator[ast.Call]:
    """Every call of a function with one of these names in the modules of a folder."""
    for path in folder.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if any(f"{name}(" in text for name in names):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                    yield node


def named_in_code() -> set[str]:
    """The types that the code of ``scheduler.api`` answers with."""
    names = {name for _, name in PROBLEMS.values()} | set(NOT_FOUND.values())
    for call in calls(PACKAGE / "api", "Problem", "ProblemError"):
        names |= {
            str(keyword.value.value)
            for keyword in call.keywords
            if keyword.arg == "type" and isinstance(keyword.value, ast.Constant)
        }
    return names


class TableTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """The code answers with the types of the table and no others."""
        self.assertEqual(named_in_code(), set(TYPES))

    def test_statuses(self) -> None:
        """The statuses of the domain's errors are those of their types."""
        for error, (status, name) in PROBLEMS.items():
            self.assertIn(status, TYPES[name].statuses, error)

    def test_kinds(self) -> None:
        """Every kind of thing that the code does not find has a type."""
        kinds = {call.args[0].value for call in calls(PACKAGE, "NotFound") if isinstance(call.args[0], ast.Constant)}
        self.assertEqual(kinds, set(NOT_FOUND))

    def test_documented(self) -> None:
        """The table of docs/problems.md is this table, in the same order."""
        _, _, table = DOCS.read_text(encoding="utf-8").partition("\n## The types\n")
        documented = re.findall(r"^\| `[a-z-]+` \| [0-9].*", table, re.MULTILINE)
        rows = []
        for name, found in TYPES.items():
            statuses = " ".join(map(str, found.statuses))
            members = " ".join(f"`{member}`" for member in found.members)
            rows.append(f"| `{name}` | {statuses} | {found.meaning} | {found.remedy} | {members} |")
        self.assertEqual(documented, rows)


class RouteTests(SynchronousTestCase):
    """``GET /problems/{name}`` and ``GET /v1/version``."""

    def test_each(self) -> None:
        """``GET`` of a type answers with its entry in the table."""
        server = Server()
        for name, found in TYPES.items():
            response = server.ask("GET", f"/problems/{name}").response()
            self.assertEqual(
                (response.status, response.json()),
                (
                    200,
                    {
                        "type": f"/problems/{name}",
                        "status": list(found.statuses),
                        "meaning": found.meaning,
                        "remedy": found.remedy,
                        "members": list(found.members),
                    },
                ),
            )

    def test_none(self) -> None:
        """A name that is no type is no route."""
        response = Server().ask("GET", "/problems/bogus").response()
        self.assertEqual((response.status, response.json()["type"]), (404, "/problems/route-unknown"))

    def test_version(self) -> None:
        """The version of the program, and of its API."""
        response = Server().ask("GET", "/v1/version").response()
        self.assertEqual((response.status, response.json()), (200, {"version": __version__, "api": "v1"}))


class StartedTests(SynchronousTestCase):
    """The member ``started`` of a submission's problem."""

    #: Every error of the domain, and whether a job was started.
    CASES: tuple[tuple[Exception, bool | str], ...] = (
        (errors.Invalid("command", "is missing"), False),
        (errors.Unauthenticated("no"), False),
        (errors.ScopeNeeded("token:ci", "run"), False),
        (errors.Refused("no"), False),
        (errors.NotFound("worker", "w"), False),
        (errors.BeyondReach("job", "j"), True),
        (errors.Conflict("no"), False),
        (errors.Draining("w"), False),
        (errors.NoMatch("none"), False),
        (errors.NameTaken("n"), False),
        (errors.WorkerOnline("w"), False),
        (errors.JobNotRunning("j", "queued"), False),
        (errors.JobNotEnded("j", "queued"), False),
        (errors.KeyInUse("k"), "unknown"),
        (errors.KeyUnsettled("k"), "unknown"),
        (errors.LeftRunning("j", (1,), "no"), False),
        (errors.JobRemoved("j"), True),
        (errors.OutputPruned("j"), False),
        (errors.OutputCut("j", "full"), False),
        (errors.OutputGone("j", "the job is lost (no record)"), False),
        (errors.OffsetBeyondEnd(1, 0), False),
        (errors.KeyReused("k"), False),
        (errors.QueueFull(1), False),
        (errors.TooManyRequests("no"), False),
        (errors.Unsupported("w", "x"), False),
        (errors.WorkerFault("w", "x"), "unknown"),
        (errors.AnswerUnreadable("w", "x"), "unknown"),
        (errors.Unavailable("no"), False),
        (errors.Unreachable("w"), False),
        (errors.Unreachable("w", sent=True), "unknown"),
        (errors.NotAWorker("w", "StartJob"), False),
        (errors.Misdirected("w"), False),
        (errors.NoFreeSlot("no"), False),
        (errors.Busy("calls", 4), False),
        (errors.StoreFailed("full"), False),
        (errors.ShuttingDown(), False),
        (errors.DeadlineExceeded("start", 10), "unknown"),
        (errors.StartUnanswered("w", "j"), "unknown"),
    )

    def test_domain_errors(self) -> None:
        """Each error says whether the job was started, or that this is unknown."""
        self.assertEqual({type(error) for error, _ in self.CASES}, set(PROBLEMS))
        for error, started in self.CASES:
            self.assertEqual(submission_problem(Failure(error)).members["started"], started, error)

    def test_others(self) -> None:
        """A refusal by the rules of HTTP started nothing; after a bug it is unknown."""
        refused = ProblemError(415, "no", type="unsupported-media-type")
        self.assertIs(submission_problem(Failure(refused)).members["started"], False)
        for bug in (RuntimeError("bug"), errors.SchedulerError("not in the table")):
            self.assertEqual(submission_problem(Failure(bug)).members["started"], "unknown")
            self.flushLoggedErrors(type(bug))

    def test_refused_before_the_routes(self) -> None:
        """A submission that is refused before the routes has ``started``, and no other request has."""
        server = Server()
        cases: tuple[tuple[str, dict[str, str]], ...] = (
            ("host-not-allowed", {"host": "evil.example"}),
            ("cross-site", {"origin": "null"}),
            ("invalid-request", {"host": "::"}),
            ("body-too-large", {"content-length": "9999999"}),
        )
        for name, headers in cases:
            for path in ("/start", "/v1/jobs", "/v1/jobs?wait=1"):
                document = server.ask("POST", path, b"", **headers).response().json()
                self.assertEqual((document["type"], document["started"]), (f"/problems/{name}", False), path)
            for method, path in (("GET", "/v1/jobs"), ("POST", "/stop"), ("PUT", "/start")):
                document = server.ask(method, path, b"", **headers).response().json()
                self.assertEqual(document["type"], f"/problems/{name}")
                self.assertNotIn("started", document)

    def test_while_draining(self) -> None:
        """A server that shuts down or has too many connections starts nothing."""
        server = Server()
        open_already = server.connect()
        open_already.send(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n")
        server.site.drain(10)
        open_already.send(b"{}")
        document = open_already.response().json()
        self.assertEqual((document["type"], document["started"]), ("/problems/shutting-down", False))
        crowded = Server(max_connections=0).ask("POST", "/v1/jobs", b"{}").response().json()
        self.assertEqual((crowded["type"], crowded["started"]), ("/problems/busy", False))

    def test_a_bug_outside_the_handlers(self) -> None:
        """After a bug outside of the handlers, ``started`` is unknown."""
        server = Server()
        self.patch(server.site, "resource", None)
        document = server.ask("POST", "/start", b"{}").response().json()
        self.assertEqual((document["type"], document["started"]), ("/problems/internal", "unknown"))
        self.flushLoggedErrors()
