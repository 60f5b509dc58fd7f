"""The law of imports: which modules may import which, and what of a module's source breaks it."""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

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
BARRED = (
    (("twisted", "zope"), "scheduler.cli", "a command must start at once, and blocks while it waits"),
    (("scheduler.cluster",), "scheduler.security", "it sees the cluster through interfaces"),
)

#: Modules that run in a bare interpreter, without site-packages, and the only other modules of ours they may import.
BARE = "scheduler.worker.shim"
BARE_MAY = ("scheduler.daemon.drafts", "scheduler.daemon.failpoints")

#: The common part of both programs knows nothing of jobs. It may import only these modules of ours.
DAEMON = "scheduler.daemon"
DAEMON_MAY = tuple(
    f"scheduler.{name}" for name in ("__version__", "errors", "limits", "names", "net", "reading", "units")
)
DAEMON_MAY += ("scheduler.security.identities", "scheduler.security.presented")

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
    "workers": ("jobs", "job_rounds", "reach", "expected", "set_back", "ledger", *_FACTS),
    "jobs": ("job_rounds", "expected", "set_back", "settling", "reach", "ledger", "listing", *_HEARD, *_FACTS, *_FILED),
    "job_rounds": ("registry",),
    "expected": ("registry", *_FILED),
    "set_back": ("commit_counts", "settling", "ledger"),
    "commit_counts": ("ledger",),
    "settling": (),
    "reach": ("registry",),
    "output": ("reach", "changes", "registry", "lifecycle"),
    "ledger": ("endings", "changes", *_FACTS),
    "registry": ("known_workers", "known_jobs", "candidates", "indices"),
    "known_workers": ("indices",),
    "known_jobs": ("listing", "indices"),
    "indices": (),
    "listing": ("filters",),
    "candidates": ("requirement", "indices"),
    "requirement": (),
    "filters": ("indices",),
    "saving": (),
    "endings": ("registry", "lifecycle"),
    "waits": ("changes", "registry"),
    "changes": (),
    "lifecycle": (),
}

#: The vocabulary. These modules import nothing else beside the standard library.
VOCABULARY = {
    "scheduler.errors": (),
    "scheduler.terms": ("attrs",),
    "scheduler.request_keys": ("attrs",),
    "scheduler.model": ("attrs", "scheduler.request_keys", "scheduler.terms"),
    "scheduler.messages": ("attrs", "scheduler.model", "scheduler.request_keys", "scheduler.terms"),
    "scheduler.views": ("attrs", "scheduler.model"),
    "scheduler.security.principals": ("attrs", "scheduler.terms"),
    "scheduler.security.token": ("attrs", "scheduler.model", "scheduler.security.principals", "scheduler.terms"),
    "scheduler.names": (),
    "scheduler.random_ids": (),
    "scheduler.units": ("attrs",),
    "scheduler.interfaces": (
        "attrs",
        "zope.interface",
        "twisted.internet",
        *(
            f"scheduler.{name}"
            for name in ("messages", "model", "request_keys", "security.audit", "security.token", "terms", "views")
        ),
    ),
    "scheduler.texts": (),
    "scheduler.security.audit": ("attrs", "scheduler.texts"),
    "scheduler.worker_interfaces": (
        "zope.interface",
        "twisted.internet",
        *(f"scheduler.{name}" for name in ("messages", "model", "request_keys")),
    ),
}

MAX_LINES = 400


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
