"""The law of imports: which modules may import which, checked in the source of every module, and tested itself."""

import ast
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from attrs import frozen
from twisted.plugins import scheduler_plugin
from twisted.trial.unittest import SynchronousTestCase

import scheduler

ROOT = Path(scheduler.__file__).parent

#: Parts that never import each other. They meet in the cluster, through interfaces, and in the taps, by name.
ROOMS = ("scheduler.api", "scheduler.web", "scheduler.rpc", "scheduler.store", "scheduler.worker", "scheduler.cli")

#: Modules that put the parts together.
TAPS = ("scheduler.tap", "scheduler.worker.tap")

#: The Python client. Other people's programs load it, so of this package it imports nothing but the version.
CLIENT = "scheduler.client"

#: Modules of the client for programs with a reactor, and the packages that only they may import.
TWISTED_CLIENT = (f"{CLIENT}.twisted", f"{CLIENT}.twisted_channel")
REACTOR = ("twisted", "OpenSSL", "service_identity")

#: Packages that only some modules may import: (packages, modules).
RESERVED = (
    (("grpc", "grpc_health", "grpc_reflection", "google.protobuf", "scheduler.pb"), ("scheduler.rpc", "scheduler.pb")),
    (("klein", "werkzeug"), ("scheduler.api", "scheduler.web")),
    (("twisted.web",), ("scheduler.api", "scheduler.web", *TWISTED_CLIENT)),
    (("sqlalchemy", "sqlite3", "psycopg"), ("scheduler.store",)),
    (("treq",), TWISTED_CLIENT),
    (("urllib3",), ("scheduler.client",)),
    (("twisted.internet.reactor",), TAPS),
    (("toml",), ("scheduler.daemon.tomlfile",)),
    # The CLI reads its contexts with the standard library: `toml` would be loaded for nothing else.
    (("tomllib",), ("scheduler.daemon.tomlfile", "scheduler.cli.contexts")),
    (("click",), ("scheduler.cli",)),
    # Slow to import: only the module that draws tables loads it.
    (("rich",), ("scheduler.cli.drawing",)),
)

#: Imports that are forbidden in some modules, beyond RESERVED: (packages, modules, reason).
BARRED = ((("twisted", "zope"), "scheduler.cli", "a command must start at once, and blocks while it waits"),)

#: Modules that run in a bare interpreter, without site-packages, and the only other modules of ours they may import.
BARE = "scheduler.worker.shim"
BARE_MAY = ("scheduler.daemon.failpoints",)

#: The common part of both programs knows nothing of jobs. It may import only these modules of ours.
DAEMON = "scheduler.daemon"
DAEMON_MAY = tuple(f"scheduler.{name}" for name in ("__version__", "errors", "names", "net", "reading", "units"))

#: The parts of ``cluster/`` from the top, each with the parts that it may import beside itself. ``workers`` may use
#: ``jobs``; ``output`` needs neither. They meet in ``service`` and ``build``.
CLUSTER = "scheduler.cluster"
_FACTS = ("registry", "saving", "lifecycle")
#: The change feed, and its listeners that wait for one change.
_HEARD = ("changes", "waits")
#: The registry's index of workers, and its question which of them can take a job.
_FILED = ("candidates", "requirement")
CLUSTER_PARTS: dict[str, tuple[str, ...]] = {
    "build": ("service", "workers", "jobs", "output", "expected", "set_back", "reach", "ledger", *_HEARD, *_FACTS),
    "service": ("workers", "jobs", "output", "reach", "ledger", "filters", "listing", *_HEARD, *_FACTS),
    "workers": ("jobs", "job_rounds", "expected", "set_back", "ledger", *_FACTS),
    "jobs": ("job_rounds", "expected", "set_back", "settling", "reach", "ledger", *_HEARD, *_FACTS, *_FILED),
    "job_rounds": ("registry",),
    "expected": ("registry", *_FILED),
    "set_back": ("commit_counts", "settling", "ledger"),
    "commit_counts": ("ledger",),
    "settling": (),
    "reach": ("registry",),
    "output": ("reach", "changes", "registry", "lifecycle"),
    "ledger": ("endings", "changes", "specs", *_FACTS),
    "registry": ("candidates", "listing"),
    "listing": ("filters",),
    "candidates": ("requirement",),
    "requirement": (),
    "filters": (),
    "saving": (),
    "specs": ("registry",),
    "endings": ("registry", "lifecycle"),
    "waits": ("changes", "registry"),
    "changes": (),
    "lifecycle": (),
}

#: The vocabulary. These modules import nothing else beside the standard library.
VOCABULARY = {
    "scheduler.errors": (),
    "scheduler.terms": ("attrs",),
    "scheduler.model": ("attrs", "scheduler.terms"),
    "scheduler.messages": ("attrs", "scheduler.model", "scheduler.terms"),
    "scheduler.views": ("attrs", "scheduler.model"),
    "scheduler.names": (),
    "scheduler.random_ids": (),
    "scheduler.units": ("attrs",),
    "scheduler.interfaces": (
        "attrs",
        "zope.interface",
        "twisted.internet",
        *(f"scheduler.{name}" for name in ("messages", "model", "terms", "views")),
    ),
    "scheduler.worker_interfaces": ("zope.interface", "twisted.internet", "scheduler.model", "scheduler.messages"),
}

MAX_LINES = 440


@frozen
class Import:
    """An imported name."""

    name: str
    line: int
    #: Whether the import is inside a function, so not made when the module is loaded.
    late: bool


def within(name: str, parts: tuple[str, ...]) -> bool:
    """Whether a module is one of ``parts`` or inside one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def imports(module: str, source: str, is_package: bool = False) -> Iterator[Import]:
    """All imports of ``source``. ``from a import b`` is both ``a`` and ``a.b``, because b may be a module."""

    def visit(node: ast.AST, late: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, late)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, late)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    return visit(ast.parse(source), late=False)


def part_of_cluster(name: str) -> str:
    """The part of ``cluster/`` that a module is or belongs to; ``""`` for the package itself, and outside of it."""
    return name.removeprefix(f"{CLUSTER}.").split(".")[0] if name.startswith(f"{CLUSTER}.") else ""


def against_order(module: str, name: str) -> str | None:
    """Why ``module`` must not import ``name``: the rule of ``daemon/``, the shim, or the parts of ``cluster/``."""
    ours = within(name, ("scheduler",)) and name != "scheduler"
    if ours and within(module, (DAEMON,)) and not within(name, (DAEMON, *DAEMON_MAY)):
        return f"{DAEMON} knows nothing of jobs"
    if ours and within(module, (BARE,)) and not within(name, (BARE, *BARE_MAY)):
        return f"{BARE} is for a bare interpreter"
    here, there = part_of_cluster(module), part_of_cluster(name)
    if here and here not in CLUSTER_PARTS:
        return f"{here} has no place in the order of the parts of {CLUSTER}"
    if here and there and there != here and there not in CLUSTER_PARTS[here]:
        return f"{here} must not know {there}"
    return None


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """The imports of a module that break the law, and whether the module is too long."""
    found = []

    def complain(line: int, what: str) -> None:
        found.append(f"{module}:{line} {what}")

    room = next((room for room in ROOMS if within(module, (room,))), None)
    for each in imports(module, source, is_package):
        for what, where in RESERVED:
            if within(each.name, what) and not within(module, where):
                complain(each.line, f"imports {each.name}, which only {', '.join(where)} may")
        for what, part, why in BARRED:
            if within(each.name, what) and within(module, (part,)):
                complain(each.line, f"imports {each.name}: {why}")
        if module not in TAPS:
            for other in ROOMS:
                if other != room and within(each.name, (other,)):
                    complain(each.line, f"imports {each.name}: {room or 'what all share'} must not know {other}")
        if why_not := against_order(module, each.name):
            complain(each.line, f"imports {each.name}: {why_not}")
        if within(each.name, TAPS):
            complain(each.line, f"imports {each.name}, which only twistd may")
        if within(module, (CLIENT,)):
            if within(each.name, ("scheduler",)) and not within(each.name, (CLIENT, "scheduler.__version__")):
                complain(each.line, f"imports {each.name}: the client stands alone")
            if within(each.name, REACTOR) and module not in TWISTED_CLIENT:
                complain(each.line, f"imports {each.name}: the blocking client needs no reactor")
        if module in VOCABULARY and not within(
            each.name, ("__future__", *VOCABULARY[module], *sys.stdlib_module_names)
        ):
            complain(each.line, f"imports {each.name}: the vocabulary knows {VOCABULARY[module]} alone")
        if each.late and not (module in TAPS and each.name == "twisted.internet.reactor"):
            complain(each.line, f"imports {each.name} inside a function")
    length = source.count("\n")
    if length > MAX_LINES and not within(module, ("scheduler.pb",)):
        complain(length, "is asking to be two")
    return found


def foreign(module: str, sources: Mapping[str, str]) -> list[str]:
    """Imports of ``module``, and of the modules that it loads, that a bare interpreter lacks."""
    found, waiting, seen = [], [module], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in sources:
            continue
        seen.add(name)
        # The packages around a module are loaded with it.
        waiting.extend(".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1))
        for each in imports(name, sources[name], is_package=any(other.startswith(f"{name}.") for other in sources)):
            if within(each.name, ("scheduler",)):
                waiting.extend((each.name, each.name.rpartition(".")[0]))
            elif each.name.split(".")[0] not in sys.stdlib_module_names:
                found.append(f"{name}:{each.line} imports {each.name}, loaded by {module}")
    return found


def not_bare(sources: Mapping[str, str]) -> list[str]:
    """Imports that a bare interpreter lacks, of all modules in ``BARE``."""
    return [found for module in sources if within(module, (BARE,)) for found in foreign(module, sources)]


def installed() -> Iterator[tuple[str, Path]]:
    """All our modules, by name."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["scheduler", *path.relative_to(ROOT).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


class LawTests(SynchronousTestCase):
    """Our modules keep the law."""

    def test_kept(self) -> None:
        """No module has a forbidden import, imports inside a function, or is far over 400 lines."""
        found = []
        for module, path in installed():
            found += violations(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
        self.assertEqual(found, [], "\n".join(found))

    def test_bare(self) -> None:
        """Modules for the bare interpreter load only the standard library."""
        sources = {module: path.read_text(encoding="utf-8") for module, path in installed()}
        self.assertEqual(not_bare(sources), [])

    def test_plugin(self) -> None:
        """The plugin, which every twistd on the machine loads, imports only the class of its service makers."""
        source = Path(scheduler_plugin.__file__).read_text(encoding="utf-8")
        self.assertEqual(
            [each.name for each in imports("scheduler_plugin", source)], ["twisted.application.service.ServiceMaker"]
        )

    def test_benchmarks(self) -> None:
        """The modules of tests that benchmarks load need no package of the tests."""
        tests = Path(__file__).parent
        for file in (tests / "__init__.py", tests / "postgres.py"):
            names = {each.name.split(".")[0] for each in imports(file.stem, file.read_text(encoding="utf-8"))}
            self.assertLessEqual(names, set(sys.stdlib_module_names), file)

    def test_complete(self) -> None:
        """The law names only parts that exist."""
        named = {
            *TAPS,
            *VOCABULARY,
            BARE,
            "scheduler.daemon.tomlfile",
            "scheduler.rpc",
            "scheduler.api",
            "scheduler.store",
        }
        named |= {CLIENT, *TWISTED_CLIENT, DAEMON, *(f"{CLUSTER}.{part}" for part in CLUSTER_PARTS)}
        self.assertEqual(named - {module for module, _ in installed()}, set())


class LawIsEnforcedTests(SynchronousTestCase):
    """The law finds each violation."""

    def assertBroken(self, module: str, source: str, check: Callable[[str, str], list[str]] = violations) -> None:
        self.assertTrue(check(module, source), f"{module} may {source!r}")

    def assertKept(self, module: str, source: str) -> None:
        self.assertEqual(violations(module, source), [])

    def test_reserved(self) -> None:
        """A reserved library is found in any other module, in each spelling of an import."""
        for module, source in (
            ("scheduler.cluster.service", "import grpc"),
            ("scheduler.cluster.service", "import grpc.aio as nothing"),
            ("scheduler.cluster.service", "from grpc import server"),
            ("scheduler.worker.jobs", "from scheduler.pb import worker_pb2"),
            ("scheduler.worker.jobs", "from scheduler import pb"),
            ("scheduler.worker.jobs", "from ..pb import worker_pb2"),
            ("scheduler.api.app", "from google.protobuf import message"),
            ("scheduler.rpc.server", "from twisted.web.server import Site"),
            ("scheduler.tap", "from twisted.web.server import Site"),
            ("scheduler.cluster.service", "from klein import Klein"),
            ("scheduler.api.app", "import sqlite3"),
            ("scheduler.api.app", "import treq"),
            ("scheduler.threads", "from twisted.internet import reactor"),
            ("scheduler.threads", "import twisted.internet.reactor"),
            ("scheduler.tap", "import toml"),
            ("scheduler.cli.main", "import urllib3"),
            ("scheduler.cli.main", "import treq"),
            ("scheduler.client.blocking", "import treq"),
            ("scheduler.client.blocking", "from twisted.web.client import Agent"),
            ("scheduler.cli.run", "import tomllib"),
            ("scheduler.cli.run", "import rich.table"),
            ("scheduler.cli.run", "from twisted.internet.defer import Deferred"),
            ("scheduler.client.core", "import click"),
            ("scheduler.wire", "if TYPE_CHECKING:\n    import grpc"),
            ("scheduler.wire", "try:\n    import grpc\nexcept ImportError:\n    pass"),
        ):
            self.assertBroken(module, source)

    def test_rooms(self) -> None:
        """Rooms do not import each other, and common modules import no room."""
        for module, source in (
            ("scheduler.api.app", "from scheduler.rpc.status import TABLE"),
            ("scheduler.api.app", "from scheduler import rpc"),
            ("scheduler.api.app", "from .. import store"),
            ("scheduler.rpc.worker_server", "import scheduler.worker.jobs"),
            ("scheduler.worker.jobs", "from scheduler.rpc import server"),
            ("scheduler.store.memory", "from scheduler.api import app"),
            ("scheduler.cluster.service", "from scheduler.store.memory import MemoryStore"),
            ("scheduler.daemon.startup", "from scheduler.rpc import credentials"),
            ("scheduler.daemon.startup", "from scheduler.tap import Options"),
            ("scheduler.cli.run", "from scheduler.api import app"),
            ("scheduler.client.core", "from scheduler.cli import main"),
        ):
            self.assertBroken(module, source)

    def test_client(self) -> None:
        """The client imports no other part, and only its Twisted modules need a reactor."""
        for module, source in (
            ("scheduler.client.values", "from scheduler.model import Job"),
            ("scheduler.client.operations", "from scheduler import wire"),
            ("scheduler.client.operations", "from scheduler.api import app"),
            ("scheduler.client", "from twisted.internet.defer import Deferred"),
            ("scheduler.client.blocking", "from twisted.internet.defer import Deferred"),
        ):
            self.assertBroken(module, source)
        self.assertKept("scheduler.client.twisted", "from twisted.internet.defer import Deferred\nimport treq")
        self.assertKept("scheduler.client.address", "from scheduler import __version__")

    def test_daemon(self) -> None:
        """The common part of both programs knows nothing of jobs."""
        for module, source in (
            ("scheduler.daemon.config", "from scheduler.model import JobSpec"),
            ("scheduler.daemon.config", "from scheduler import model"),
            ("scheduler.daemon.startup", "from scheduler.messages import Heartbeat"),
            ("scheduler.daemon.startup", "from scheduler.interfaces import IStore"),
            ("scheduler.daemon.services", "from scheduler.cluster.build import make_cluster"),
            ("scheduler.daemon", "from scheduler.model import Job"),
        ):
            self.assertBroken(module, source)
        self.assertKept(
            "scheduler.daemon.startup", "from scheduler import __version__\nfrom scheduler.daemon import systemd"
        )
        self.assertKept("scheduler.daemon.tomlfile", "from scheduler.net import Address\nfrom scheduler import units")

    def test_parts_of_cluster(self) -> None:
        """The parts of the cluster import only those below them, and each has its place."""
        for module, source in (
            ("scheduler.cluster.jobs.starts", "from scheduler.cluster.workers.liveness import Liveness"),
            ("scheduler.cluster.jobs.starts", "from scheduler.cluster import workers"),
            ("scheduler.cluster.jobs.starts", "from ..output import outputs"),
            ("scheduler.cluster.jobs.starts", "from scheduler.cluster.service import Cluster"),
            ("scheduler.cluster.output.live", "from scheduler.cluster.jobs.starts import Starts"),
            ("scheduler.cluster.output.live", "from scheduler.cluster.workers import liveness"),
            ("scheduler.cluster.workers.liveness", "from scheduler.cluster.output.outputs import Outputs"),
            ("scheduler.cluster.workers.liveness", "import scheduler.cluster.build"),
            ("scheduler.cluster.service", "from scheduler.cluster.build import make_cluster"),
            ("scheduler.cluster.ledger", "from scheduler.cluster.jobs import placement"),
            ("scheduler.cluster.registry", "from scheduler.cluster.ledger import Ledger"),
            ("scheduler.cluster.lifecycle", "from scheduler.cluster.registry import Registry"),
            ("scheduler.cluster.drawer", "from scheduler.model import Job"),
        ):
            self.assertBroken(module, source)
        self.assertKept("scheduler.cluster.workers.reconcile", "from scheduler.cluster.jobs.starts import Starts")
        self.assertKept("scheduler.cluster.service", "from scheduler.cluster.output.outputs import Outputs")
        self.assertKept("scheduler.cluster.jobs.queue", "from scheduler.cluster.jobs.lines import Waiting")

    def test_vocabulary(self) -> None:
        """The vocabulary does not depend on its users."""
        self.assertBroken("scheduler.model", "from twisted.internet.defer import Deferred")
        self.assertBroken("scheduler.errors", "import attrs")
        self.assertBroken("scheduler.interfaces", "from scheduler.cluster import registry")

    def test_late_imports(self) -> None:
        """An import inside a function hides a cycle. Only a tap may import the reactor there."""
        late = "def f():\n    from {} import {}"
        self.assertBroken("scheduler.api.app", late.format("scheduler", "model"))
        self.assertBroken(
            "scheduler.api.app", "class A:\n    async def f(self):\n        if True:\n            import json"
        )
        self.assertBroken("scheduler.tap", late.format("scheduler.daemon", "config"))
        self.assertKept("scheduler.tap", late.format("twisted.internet", "reactor"))

    def test_length(self) -> None:
        """A file that is far over 400 lines is found."""
        self.assertBroken("scheduler.model", "\n" * 500)

    def test_allowed(self) -> None:
        """Allowed imports are accepted."""
        for module, source in (
            ("scheduler.rpc.server", "import grpc\nfrom scheduler.pb import worker_pb2\nfrom .status import TABLE"),
            ("scheduler.api.app", "from klein import Klein\nfrom twisted.web.http import Request"),
            (
                "scheduler.tap",
                "from scheduler.api import app\nfrom scheduler.rpc import server\nfrom scheduler.store import memory",
            ),
            ("scheduler.worker.tap", "from scheduler.rpc import server\nfrom scheduler.worker import jobs"),
            ("scheduler.cluster.service", "from scheduler.model import Job\nfrom scheduler.interfaces import IStore"),
            ("scheduler.worker.jobs", "from twisted.internet.defer import Deferred"),
            ("scheduler.cli.contexts", "import tomllib"),
            ("scheduler.cli.run", "import click\nfrom scheduler.client import Client"),
        ):
            self.assertKept(module, source)

    def test_bare_and_what_it_loads(self) -> None:
        """A library is found in a bare module, in the modules that it loads, and in the packages around."""
        shim = "scheduler.worker.shim.supervisor"
        clean = {"scheduler": "", "scheduler.worker": "", "scheduler.worker.shim": ""}
        clean[shim] = "import os, ctypes\nfrom scheduler.worker.shim import spool"
        clean["scheduler.worker.shim.spool"] = "import json"
        self.assertEqual(foreign(shim, clean), [])
        for module, source in clean.items():
            self.assertTrue(foreign(shim, clean | {module: f"{source}\nimport attrs"}), module)

    def test_bare_folder(self) -> None:
        """Every module of the folder is checked, even one that no other loads."""
        sources = {"scheduler": "", "scheduler.worker": "", "scheduler.worker.shim": "import os"}
        self.assertEqual(not_bare(sources), [])
        self.assertTrue(not_bare(sources | {"scheduler.worker.shim.new": "import attrs"}))
        failpoints = {"scheduler.daemon": "import twisted", "scheduler.daemon.failpoints": "import os"}
        loads = {"scheduler.worker.shim.new": "from scheduler.daemon import failpoints"}
        self.assertTrue(not_bare(sources | failpoints | loads))
        for source in ("from scheduler.worker import trees", "from scheduler.errors import Invalid"):
            self.assertBroken("scheduler.worker.shim.new", source)
        self.assertKept("scheduler.worker.shim.new", "from scheduler.daemon import failpoints\nfrom . import spool")


class InstalledTests(SynchronousTestCase):
    """The tests run against the installed package."""

    def test_site_packages(self) -> None:
        """These suites import the package from site-packages."""
        if "TOX_ENV_NAME" not in os.environ:
            self.skipTest("only tox promises an installed package")
        self.assertTrue(ROOT.is_relative_to(sysconfig.get_path("purelib")), ROOT)
