"""The documentation is complete and has nothing that does not exist: routes, fields, configuration, commands.

The routes are those of the route table. The configuration is asked for its keys: it names them when it refuses an
unknown one.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler import wire
from scheduler.api.parameters import FILTERS
from scheduler.api.routes import ROUTES
from scheduler.daemon.config import load_scheduler, load_worker
from scheduler.daemon.tomlfile import ConfigError
from scheduler.model import Job, JobSpec, JobState, Presence, Worker
from scheduler.views import WorkerView

ROOT = Path(__file__).resolve().parents[2]

#: A key that no table of a configuration has.
BOGUS = "bogus_key"

HAS_CLI = importlib.util.find_spec("scheduler.cli") is not None


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above; ``""`` if there is no such heading."""
    level = len(heading) - len(heading.lstrip("#"))
    _, found, below = f"\n{text}".partition(f"\n{heading}\n")
    return re.split(rf"^#{{1,{level}}} ", below, maxsplit=1, flags=re.MULTILINE)[0] if found else ""


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of the first table, without its head."""
    for line in re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]:  # type: ignore[index]
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def code(text: str) -> list[str]:
    """The texts in backticks."""
    return re.findall(r"`([^`]+)`", text)


def first_words(text: str) -> set[str]:
    """The names in the first column of the first table."""
    return {name for first, *_ in rows(text) for name in code(first)}


class ApiTests(SynchronousTestCase):
    """docs/api.md."""

    def setUp(self) -> None:
        self.text = document("docs/api.md")

    def documented(self) -> dict[tuple[str, str], tuple[set[str], set[str]]]:
        """The parameters and fields of each documented route, including those behind a link in the table."""
        found = {}
        linked = {
            "(#filters)": first_words(section(self.text, "### Filters")),
            "(#submitting-post-v1jobs)": first_words(section(self.text, "## Submitting: `POST /v1/jobs`")),
        }
        for route, parameters, body, _ in rows(section(self.text, "## The routes")):
            method, _, path = code(route)[0].partition(" ")
            cells = (parameters, body)
            found[method, path.replace("{", "<").replace("}", ">")] = tuple(
                set(code(cell)).union(*(names for link, names in linked.items() if link in cell)) for cell in cells
            )
        return found  # type: ignore[return-value]

    def test_routes(self) -> None:
        """The documentation has a row for each route, with its parameters and the fields of its body."""
        table = {
            (route.method, route.path): (set(route.query), set(route.body.names if route.body else ()))
            for route in ROUTES
        }
        self.assertEqual(self.documented(), table)

    def test_filters(self) -> None:
        self.assertEqual(first_words(section(self.text, "### Filters")), set(FILTERS))

    def test_states(self) -> None:
        """Each state is documented as final or not."""
        told = {state: final for states, final, _ in rows(section(self.text, "### States")) for state in code(states)}
        self.assertEqual(
            {state: final[:3] == "yes" for state, final in told.items()},
            {state.value: state.final for state in JobState if state.value in told},
        )
        self.assertEqual(set(told), {state.value for state in JobState})

    def test_answers(self) -> None:
        """The lists of a job's and a worker's fields are complete."""
        job = wire.job_json(Job(id="j", spec=JobSpec(command="a"), state=JobState.QUEUED, created_at=0.0))
        worker = wire.worker_json(WorkerView(Worker(id="w", name="w", address="a:1"), Presence(), 0, None))
        for what, shown in (("A job: `id ", job), ("`GET /v1/workers/{w}`: `id ", worker)):
            _, found, rest = self.text.partition(what)
            self.assertTrue(found, what)
            self.assertEqual({"id", *rest.partition("`")[0].split()}, set(shown), what)


class ConfigurationTests(SynchronousTestCase):
    """docs/configuration.md, the samples, and the table in README.md."""

    def known(self, load: Callable[..., Any], table: str = "") -> set[str] | None:
        """The keys of a table of the file; ``None`` if there is no such table."""
        file = Path(self.mktemp())
        file.write_text(f"[{table}]\n{BOGUS} = 1\n" if table else f"{BOGUS} = 1\n")
        try:
            load(str(file), {})
        except ConfigError as error:
            if (error.table, error.key) == (table, BOGUS):
                return set(str(error).rpartition("known: ")[2].split(", "))
        return None

    def keys(self, load: Callable[..., Any]) -> set[tuple[str, str]]:
        """Table and key of every setting of a file; ``""`` is the top level."""
        found: set[tuple[str, str]] = set()
        for name in self.known(load) or ():
            within = self.known(load, name)
            found |= {("", name)} if within is None else {(name, key) for key in within}
        return found

    def documented(self, *headings: str) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for heading in headings:
            for first, *_ in rows(section(document("docs/configuration.md"), heading)):
                table = ""
                for name in code(first):  # `[table] key` `another of that table`
                    table, key = re.fullmatch(r"(?:\[(\w+)\] )?(\w+)", name).groups(default=table)  # type: ignore[union-attr]
                    found.add((table, key))
        return found

    def sample(self, name: str) -> set[tuple[str, str]]:
        table, found = "", set()
        for line in document(name).splitlines():
            if head := re.fullmatch(r"\[(\w+)\]", line):
                table = head[1]
            elif key := re.match(r"(?:# )?(\w+) = ", line):
                found.add((table, key[1]))
        return found

    def listed(self, which: str) -> set[tuple[str, str]]:
        """The keys of that process in the README's table."""
        of_process = [
            row for row in rows(section(document("README.md"), "## Configuration")) if row[0] in (which, "both")
        ]
        return {(table.strip("`[]"), key) for _, table, keys in of_process for key in code(keys)}

    def test_keys(self) -> None:
        """Each key of a process, and no other, is in the reference, in its sample and in the table."""
        for process, load, one in (
            ("scheduler", load_scheduler, ("http_server", "addr")),
            ("worker", load_worker, ("worker", "slots")),
        ):
            keys = self.keys(load)
            self.assertIn(one, keys)
            self.assertEqual(self.documented("## Both", f"## {process.title()}"), keys)
            self.assertEqual(self.sample(f"etc/{process}.toml"), keys)
            self.assertEqual(self.listed(process), keys)


class UnitTests(SynchronousTestCase):
    """The systemd units, and the commands of docs/operations.md that set them up."""

    def unit(self, program: str) -> dict[str, str]:
        """The settings of a unit; the last value of a repeated one."""
        name = {"scheduler": "scheduler", "worker": "scheduler-worker"}[program]
        return dict(re.findall(r"^(\w+)=(.*)$", document(f"etc/systemd/{name}.service"), re.MULTILINE))

    def test_users(self) -> None:
        """Each program has a user and a folder of its own, because jobs may not read the scheduler's files."""
        scheduler, worker = self.unit("scheduler"), self.unit("worker")
        for key in ("User", "StateDirectory", "ExecStart"):
            self.assertNotEqual(scheduler[key], worker[key])
        for unit in (scheduler, worker):
            self.assertEqual(unit["StateDirectoryMode"], "0700")
            self.assertEqual({"Group", "SupplementaryGroups", "Requires", "BindsTo", "PartOf"} & set(unit), set())

    def test_set_up(self) -> None:
        """The documented commands make each user, and protect its configuration from others."""
        commands = document("docs/operations.md")
        for program in ("scheduler", "worker"):
            unit = self.unit(program)
            user, file = unit["User"], unit["ExecStart"].rpartition(" ")[2]
            for command in (
                f"useradd --system --user-group {user}",
                f"install -m 0640 -o root -g {user} etc/{program}.toml {file}",
            ):
                self.assertEqual(commands.splitlines().count(command), 1, command)
        copies = [line for line in commands.splitlines() if re.match(r"(install|cp) .*\.toml", line)]
        self.assertEqual(len(copies), 2)


class CommandTests(SynchronousTestCase):
    """docs/cli.md: a section ``## schedctl`` for the options of all commands, and one for each command."""

    if not HAS_CLI:
        skip = "there is no schedctl yet"

    def commands(self) -> Mapping[str, Any]:
        """Each command by its name, including ``schedctl`` itself, but not those below another."""
        group: Any = importlib.import_module("scheduler.cli.main").commands
        context = group.make_context("schedctl", [], resilient_parsing=True)
        found = {f"schedctl {name}": group.get_command(context, name) for name in group.list_commands(context)}
        return {"schedctl": group, **found}

    def options(self, command: Any) -> set[str]:
        """The long options of a command, and of the commands below it."""
        names = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        own = {name for name in names if name.startswith("--") and name != "--help"}
        below = command.commands.values() if hasattr(command, "commands") else ()
        return own.union(*map(self.options, below))

    def test_commands(self) -> None:
        """Each command, and no other, has a section."""
        headings = set(re.findall(r"^## `?(schedctl(?: [a-z-]+)?)`?$", document("docs/cli.md"), re.MULTILINE))
        self.assertEqual(headings, set(self.commands()))

    def test_options(self) -> None:
        """The section of a command names each of its options, and no other option."""
        text = document("docs/cli.md").replace("`", "")
        for name, command in self.commands().items():
            below = section(text, f"## {name}")
            self.assertEqual(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", below)), self.options(command), name)
