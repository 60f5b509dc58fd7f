"""Docstrings have a plain first word: a test refuses those with which riddles began."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("scheduler", "tests", "benchmarks", "examples")

#: A sentence that begins with one of these has no subject that a reader can know yet.
REFUSED = frozenset({"What", "Who", "That", "How", "Of", "Those", "One", "It", "Nobody"})

#: How many docstrings of a file still begin so. A file that has fewer must be corrected here, so this only shrinks.
EXCEPTIONS: dict[str, int] = {
    "scheduler/api/context.py": 4,
    "scheduler/api/errors.py": 3,
    "scheduler/api/events.py": 5,
    "scheduler/api/excerpts.py": 3,
    "scheduler/api/following.py": 1,
    "scheduler/api/outcomes.py": 2,
    "scheduler/api/output.py": 4,
    "scheduler/api/problems.py": 1,
    "scheduler/api/query.py": 2,
    "scheduler/api/request.py": 1,
    "scheduler/api/spans.py": 3,
    "scheduler/api/streams.py": 3,
    "scheduler/cluster/endings.py": 1,
    "scheduler/cluster/expected.py": 5,
    "scheduler/cluster/job_rounds.py": 1,
    "scheduler/cluster/jobs/attendance.py": 5,
    "scheduler/cluster/jobs/choice.py": 1,
    "scheduler/cluster/jobs/keys.py": 2,
    "scheduler/cluster/jobs/late_answers.py": 1,
    "scheduler/cluster/jobs/lines.py": 6,
    "scheduler/cluster/jobs/outlook.py": 8,
    "scheduler/cluster/jobs/placement.py": 1,
    "scheduler/cluster/jobs/queue.py": 7,
    "scheduler/cluster/jobs/removals.py": 3,
    "scheduler/cluster/jobs/signals.py": 1,
    "scheduler/cluster/jobs/starts.py": 2,
    "scheduler/cluster/jobs/stops.py": 2,
    "scheduler/cluster/ledger.py": 8,
    "scheduler/cluster/lifecycle.py": 8,
    "scheduler/cluster/output/bounds.py": 4,
    "scheduler/cluster/output/follower.py": 2,
    "scheduler/cluster/output/live.py": 6,
    "scheduler/cluster/output/outputs.py": 5,
    "scheduler/cluster/reach.py": 1,
    "scheduler/cluster/registry.py": 11,
    "scheduler/cluster/saving.py": 2,
    "scheduler/cluster/service.py": 1,
    "scheduler/cluster/set_back.py": 4,
    "scheduler/cluster/specs.py": 1,
    "scheduler/cluster/waits.py": 2,
    "scheduler/cluster/workers/clashes.py": 3,
    "scheduler/cluster/workers/departures.py": 2,
    "scheduler/cluster/workers/forgetting.py": 1,
    "scheduler/cluster/workers/liveness.py": 7,
    "scheduler/cluster/workers/membership.py": 4,
    "scheduler/cluster/workers/newcomers.py": 2,
    "scheduler/cluster/workers/reconcile.py": 3,
    "scheduler/cluster/workers/refusals.py": 3,
    "scheduler/daemon/tomlfile.py": 6,
    "scheduler/deferreds.py": 1,
    "scheduler/fields.py": 3,
    "scheduler/worker/__init__.py": 1,
    "scheduler/worker/clearing.py": 1,
    "scheduler/worker/commands.py": 2,
    "scheduler/worker/disk.py": 2,
    "scheduler/worker/endings.py": 4,
    "scheduler/worker/environment.py": 2,
    "scheduler/worker/eviction.py": 4,
    "scheduler/worker/facts.py": 2,
    "scheduler/worker/folder.py": 1,
    "scheduler/worker/job.py": 3,
    "scheduler/worker/jobs.py": 3,
    "scheduler/worker/leftovers.py": 4,
    "scheduler/worker/link.py": 2,
    "scheduler/worker/message_budget.py": 1,
    "scheduler/worker/mounts.py": 1,
    "scheduler/worker/records.py": 3,
    "scheduler/worker/recovery.py": 1,
    "scheduler/worker/reports.py": 3,
    "scheduler/worker/retention.py": 5,
    "scheduler/worker/room.py": 4,
    "scheduler/worker/sealing.py": 1,
    "scheduler/worker/shim/copies.py": 1,
    "scheduler/worker/shim/handoff.py": 2,
    "scheduler/worker/shim/phases.py": 3,
    "scheduler/worker/shim/proctree.py": 3,
    "scheduler/worker/shim/pump.py": 1,
    "scheduler/worker/shim/spool.py": 1,
    "scheduler/worker/shim/zygote.py": 1,
    "scheduler/worker/spools.py": 3,
    "scheduler/worker/starting.py": 1,
    "scheduler/worker/trees.py": 4,
    "scheduler/worker/used_ids.py": 3,
    "scheduler/worker/watch.py": 4,
    "tests/contract/scheduler_worlds.py": 14,
    "tests/contract/test_job_runner.py": 6,
    "tests/contract/test_scheduler.py": 14,
    "tests/contract/test_scheduler_attendance.py": 7,
    "tests/contract/test_scheduler_filters.py": 1,
    "tests/contract/test_scheduler_keys.py": 1,
    "tests/contract/test_scheduler_queue.py": 8,
    "tests/contract/test_scheduler_removals.py": 5,
    "tests/contract/test_scheduler_signals.py": 2,
    "tests/contract/test_scheduler_waiting.py": 9,
    "tests/contract/test_scheduler_workers.py": 11,
    "tests/fakes/scheduler.py": 9,
    "tests/fakes/scheduler_attendance.py": 4,
    "tests/fakes/scheduler_jobs.py": 2,
    "tests/fakes/scheduler_queue.py": 3,
    "tests/integration/running.py": 2,
    "tests/integration/test_clearing.py": 2,
    "tests/integration/test_copies.py": 2,
    "tests/integration/test_cut_output.py": 3,
    "tests/integration/test_http_hostile.py": 11,
    "tests/integration/test_http_sockets.py": 2,
    "tests/integration/test_keeping.py": 5,
    "tests/integration/test_mounts.py": 6,
    "tests/integration/test_proctree.py": 2,
    "tests/integration/test_recovery.py": 6,
    "tests/integration/test_remains.py": 3,
    "tests/integration/test_removing.py": 4,
    "tests/integration/test_shell.py": 1,
    "tests/integration/test_shim.py": 8,
    "tests/integration/test_shim_dying.py": 3,
    "tests/integration/test_shim_linger.py": 7,
    "tests/integration/test_shim_output.py": 4,
    "tests/integration/test_shortages.py": 2,
    "tests/integration/test_signals.py": 2,
    "tests/integration/test_trees.py": 3,
    "tests/integration/test_usage.py": 2,
    "tests/integration/test_watch.py": 6,
    "tests/unit/api/conversation.py": 3,
    "tests/unit/api/documents.py": 1,
    "tests/unit/api/routes.py": 10,
    "tests/unit/api/streaming.py": 1,
    "tests/unit/api/test_attendance.py": 1,
    "tests/unit/api/test_bodies.py": 6,
    "tests/unit/api/test_cut_output.py": 1,
    "tests/unit/api/test_errors.py": 5,
    "tests/unit/api/test_events.py": 2,
    "tests/unit/api/test_excerpts.py": 9,
    "tests/unit/api/test_guard.py": 3,
    "tests/unit/api/test_outcomes.py": 5,
    "tests/unit/api/test_peers.py": 3,
    "tests/unit/api/test_problems.py": 5,
    "tests/unit/api/test_query.py": 2,
    "tests/unit/api/test_routes.py": 1,
    "tests/unit/api/test_site.py": 12,
    "tests/unit/api/test_sse.py": 5,
    "tests/unit/api/test_streams.py": 11,
    "tests/unit/api/test_waiting_for.py": 3,
    "tests/unit/cluster/case.py": 1,
    "tests/unit/cluster/output_case.py": 2,
    "tests/unit/cluster/spooled.py": 2,
    "tests/unit/cluster/test_adoption.py": 8,
    "tests/unit/cluster/test_attendance.py": 2,
    "tests/unit/cluster/test_backoff.py": 3,
    "tests/unit/cluster/test_candidates.py": 3,
    "tests/unit/cluster/test_clashes.py": 9,
    "tests/unit/cluster/test_core_workers.py": 5,
    "tests/unit/cluster/test_cut_calls.py": 3,
    "tests/unit/cluster/test_endings.py": 5,
    "tests/unit/cluster/test_expected.py": 7,
    "tests/unit/cluster/test_first_calls.py": 2,
    "tests/unit/cluster/test_house.py": 1,
    "tests/unit/cluster/test_idle.py": 1,
    "tests/unit/cluster/test_ledger.py": 6,
    "tests/unit/cluster/test_lines.py": 4,
    "tests/unit/cluster/test_listing.py": 3,
    "tests/unit/cluster/test_liveness.py": 3,
    "tests/unit/cluster/test_membership.py": 11,
    "tests/unit/cluster/test_newcomers.py": 3,
    "tests/unit/cluster/test_offline.py": 13,
    "tests/unit/cluster/test_outlook.py": 4,
    "tests/unit/cluster/test_output.py": 8,
    "tests/unit/cluster/test_output_cut.py": 4,
    "tests/unit/cluster/test_output_ends.py": 8,
    "tests/unit/cluster/test_output_property.py": 1,
    "tests/unit/cluster/test_output_resume.py": 1,
    "tests/unit/cluster/test_output_snapshot.py": 3,
    "tests/unit/cluster/test_polling.py": 1,
    "tests/unit/cluster/test_pulse.py": 1,
    "tests/unit/cluster/test_queue.py": 25,
    "tests/unit/cluster/test_reconcile.py": 1,
    "tests/unit/cluster/test_registry.py": 5,
    "tests/unit/cluster/test_removals.py": 10,
    "tests/unit/cluster/test_retention.py": 1,
    "tests/unit/cluster/test_retry.py": 8,
    "tests/unit/cluster/test_saving.py": 4,
    "tests/unit/cluster/test_service.py": 9,
    "tests/unit/cluster/test_set_back.py": 9,
    "tests/unit/cluster/test_specs.py": 2,
    "tests/unit/cluster/test_stops.py": 9,
    "tests/unit/cluster/test_unreachable.py": 5,
    "tests/unit/test_config.py": 6,
    "tests/unit/test_wire.py": 6,
    "tests/unit/worker/test_commands.py": 8,
    "tests/unit/worker/test_disk.py": 4,
    "tests/unit/worker/test_environment.py": 3,
    "tests/unit/worker/test_eviction.py": 6,
    "tests/unit/worker/test_folder.py": 7,
    "tests/unit/worker/test_link.py": 30,
    "tests/unit/worker/test_pump.py": 1,
    "tests/unit/worker/test_retention.py": 11,
    "tests/unit/worker/test_spool.py": 14,
    "tests/unit/worker/test_used_ids.py": 2,
}


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings of a module, its classes and its functions, each with the number of its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def refused(source: str) -> list[str]:
    """The docstrings that begin with a refused word, each as ``line: beginning``."""
    found = []
    for line, text in docstrings(source):
        word = re.match(r"\W*(\w+)", text)
        if word and word[1] in REFUSED:
            found.append(f"{line}: {text[:60]}")
    return sorted(found, key=lambda each: int(each.partition(":")[0]))


def complaints(found: dict[str, list[str]], exceptions: dict[str, int]) -> list[str]:
    """Files with more refused docstrings than their exception allows, and exceptions that allow more than there are."""
    wrong = []
    for file in sorted({*found, *exceptions}):
        here, allowed = found.get(file, []), exceptions.get(file, 0)
        if len(here) > allowed:
            wrong.append(f"{file}: {len(here)} docstrings begin with a refused word, {allowed} may: {here}")
        elif len(here) < allowed:
            wrong.append(f"{file}: its exception is {allowed}, and must be {len(here)} now")
    return wrong


def found_in_tree() -> dict[str, list[str]]:
    """The refused docstrings of each file that has some. Generated code is not ours to word."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if "pb" not in path.parts]
    found = {str(path.relative_to(ROOT)): refused(path.read_text(encoding="utf-8")) for path in paths}
    return {file: lines for file, lines in found.items() if lines}


class WordsTests(SynchronousTestCase):
    """The docstrings of this project begin with a word that says something."""

    def test_first_words(self) -> None:
        """No docstring begins with a refused word, and no exception is left over."""
        wrong = complaints(found_in_tree(), EXCEPTIONS)
        self.assertEqual(wrong, [], "\n".join(wrong))


class RuleTests(SynchronousTestCase):
    """The rule finds what breaks it."""

    def test_every_kind_of_docstring(self) -> None:
        """Docstrings of modules, classes, methods and nested functions are read."""
        source = '''"""What is here."""
class A:
    """
    Of a job.
    """
    def f(self):
        """``It`` is there."""
        async def g():
            """Nobody."""
'''
        self.assertEqual([line.partition(":")[0] for line in refused(source)], ["1", "3", "7", "9"])

    def test_plain_words_pass(self) -> None:
        """A word that only begins like a refused one passes, and so does a function without a docstring."""
        self.assertEqual(refused('"""Whether it runs."""\ndef f():\n    """Its id."""\ndef g(): pass'), [])

    def test_exceptions(self) -> None:
        """An exception covers its number of docstrings, and must go when they have gone."""
        found = {"a.py": ["1: What"], "b.py": ["1: Who", "9: How"]}
        self.assertEqual(complaints(found, {"a.py": 1, "b.py": 2}), [])
        for exceptions in ({"a.py": 1, "b.py": 1}, {"b.py": 2}, {"a.py": 2, "b.py": 2}, {"a.py": 1, "b.py": 2, "c": 1}):
            self.assertEqual(len(complaints(found, exceptions)), 1, exceptions)
