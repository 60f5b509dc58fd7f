"""The law of imports, checked in the source of every module, and tested itself."""

import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from twisted.plugins import scheduler_plugin
from twisted.trial.unittest import SynchronousTestCase

from tests.import_law import (
    BARE,
    CLIENT,
    CLUSTER,
    CLUSTER_PARTS,
    DAEMON,
    ROOT,
    TAPS,
    TWISTED_CLIENT,
    VOCABULARY,
    foreign,
    imports,
    installed,
    not_bare,
    violations,
)


class LawTests(SynchronousTestCase):
    """Our modules keep the law."""

    def test_kept(self) -> None:
        """No module has a forbidden import, imports inside a function, or is over 400 lines."""
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
        """A file of over 400 lines is found."""
        self.assertBroken("scheduler.model", "\n" * 401)
        self.assertKept("scheduler.model", "\n" * 400)

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
