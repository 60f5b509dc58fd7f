"""The types of problems: what the code answers, what the table says, and what docs/problems.md says are the same."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import scheduler
from scheduler import __version__
from scheduler.api.errors import NOT_FOUND, PROBLEMS, ProblemError, submission_problem
from scheduler.api.problems import TYPES
from scheduler.errors import (
    AnswerUnreadable,
    Busy,
    Conflict,
    DeadlineExceeded,
    Draining,
    Invalid,
    JobNotEnded,
    JobNotRunning,
    JobRemoved,
    KeyInUse,
    KeyReused,
    KeyUnsettled,
    LeftRunning,
    Misdirected,
    NameTaken,
    NoFreeSlot,
    NoMatch,
    NotAWorker,
    NotFound,
    OffsetBeyondEnd,
    OutputCut,
    OutputGone,
    OutputPruned,
    QueueFull,
    Refused,
    SchedulerError,
    ShuttingDown,
    StartUnanswered,
    StoreFailed,
    Unavailable,
    Unreachable,
    Unsupported,
    WorkerFault,
    WorkerOnline,
)
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
    """The types that something in ``scheduler.api`` answers with."""
    names = {name for _, name in PROBLEMS.values()} | set(NOT_FOUND.values())
    for call in calls(PACKAGE / "api", "Problem", "ProblemError"):
        names |= {
            str(keyword.value.value)
            for keyword in call.keywords
            if keyword.arg == "type" and isinstance(keyword.value, ast.Constant)
        }
    return names


class TableTests(SynchronousTestCase):
    """One table of types."""

    def test_complete(self) -> None:
        """Every type that the code answers with is in the table, and the code answers with every one of the table."""
        self.assertEqual(named_in_code(), set(TYPES))

    def test_statuses(self) -> None:
        """The statuses of the domain's errors are those of their types."""
        for error, (status, name) in PROBLEMS.items():
            self.assertIn(status, TYPES[name].statuses, error)

    def test_kinds(self) -> None:
        """Whatever the code does not find has a type."""
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
    """A ``type`` is a path of this server."""

    def test_each(self) -> None:
        """``GET`` of a type says what it means."""
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
        """What is no type is no route."""
        response = Server().ask("GET", "/problems/bogus").response()
        self.assertEqual((response.status, response.json()["type"]), (404, "/problems/route-unknown"))

    def test_version(self) -> None:
        """The version of the program, and of its API."""
        response = Server().ask("GET", "/v1/version").response()
        self.assertEqual((response.status, response.json()), (200, {"version": __version__, "api": "v1"}))


class StartedTests(SynchronousTestCase):
    """What a submission is told of its job."""

    #: Every error of the domain, and whether a job was started.
    CASES: tuple[tuple[Exception, bool | str], ...] = (
        (Invalid("command", "is missing"), False),
        (Refused("no"), False),
        (NotFound("worker", "w"), False),
        (Conflict("no"), False),
        (Draining("w"), False),
        (NoMatch("none"), False),
        (NameTaken("n"), False),
        (WorkerOnline("w"), False),
        (JobNotRunning("j", "queued"), False),
        (JobNotEnded("j", "queued"), False),
        (KeyInUse("k"), "unknown"),
        (KeyUnsettled("k"), "unknown"),
        (LeftRunning("j", (1,), "no"), False),
        (JobRemoved("j"), True),
        (OutputPruned("j"), False),
        (OutputCut("j", "full"), False),
        (OutputGone("j", "the job is lost (no record)"), False),
        (OffsetBeyondEnd(1, 0), False),
        (KeyReused("k"), False),
        (QueueFull(1), False),
        (Unsupported("w", "x"), False),
        (WorkerFault("w", "x"), "unknown"),
        (AnswerUnreadable("w", "x"), "unknown"),
        (Unavailable("no"), False),
        (Unreachable("w"), False),
        (Unreachable("w", sent=True), "unknown"),
        (NotAWorker("w", "StartJob"), False),
        (Misdirected("w"), False),
        (NoFreeSlot("no"), False),
        (Busy("calls", 4), False),
        (StoreFailed("full"), False),
        (ShuttingDown(), False),
        (DeadlineExceeded("start", 10), "unknown"),
        (StartUnanswered("w", "j"), "unknown"),
    )

    def test_of_the_domain(self) -> None:
        """Each error says whether the job was started, or that nobody knows."""
        self.assertEqual({type(error) for error, _ in self.CASES}, set(PROBLEMS))
        for error, started in self.CASES:
            self.assertEqual(submission_problem(Failure(error)).members["started"], started, error)

    def test_others(self) -> None:
        """What HTTP refuses was not started; of a bug nobody knows."""
        refused = ProblemError(415, "no", type="unsupported-media-type")
        self.assertIs(submission_problem(Failure(refused)).members["started"], False)
        for bug in (RuntimeError("bug"), SchedulerError("not in the table")):
            self.assertEqual(submission_problem(Failure(bug)).members["started"], "unknown")
            self.flushLoggedErrors(type(bug))

    def test_refused_before_the_routes(self) -> None:
        """A submission that no route sees says so as well, and nothing else does."""
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
        """Nothing is started by a process that is about to end, or that has too many connections."""
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
        """Of a submission that a bug ended nobody knows."""
        server = Server()
        self.patch(server.site, "resource", None)
        document = server.ask("POST", "/start", b"{}").response().json()
        self.assertEqual((document["type"], document["started"]), ("/problems/internal", "unknown"))
        self.flushLoggedErrors()
