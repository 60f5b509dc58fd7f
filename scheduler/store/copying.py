"""``python -m scheduler.store.copying FROM TO``: copies everything in one database into an empty one.

Use it to move from a file to a server, or back, while the scheduler is stopped. Both arguments are URLs as in ``[store]
url``; a file needs its absolute path. The input of jobs that have ended is not copied.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve

from scheduler.daemon.tomlfile import database_url
from scheduler.errors import Invalid, StoreFailed
from scheduler.interfaces import Loaded
from scheduler.model import Job
from scheduler.store.databases import prepare
from scheduler.store.writer import Writer

#: Jobs written in one transaction; fewer once their arguments and variables have this many characters.
JOBS_PER_TRANSACTION, CHARACTERS_PER_TRANSACTION = 1000, 16 * 1024 * 1024

#: Entries of the audit written in one transaction.
ENTRIES_PER_TRANSACTION = 1000

_FILE = "sqlite:///"


def copy(source: str, target: str) -> Loaded:
    """Copy everything, and return it. Raises ``Invalid`` if a database is unfit, ``StoreFailed`` if it fails."""
    source, target = _checked("FROM", source), _checked("TO", target)
    if source.startswith(_FILE) and not Path(source.removeprefix(_FILE)).is_file():
        raise Invalid("FROM", f"must be there: {source.removeprefix(_FILE)} is not, or is no file")
    with _opened("FROM", source) as reader, _opened("TO", target) as writer:
        held = reader.load_thd()
        if writer.load_thd() != Loaded() or writer.entries_after_thd(0, 1):
            raise Invalid("TO", "must hold nothing yet")
        for jobs in _parts(held.jobs):
            specs = reader.read_specs_thd([job.id for job in jobs if job.spec.stored])
            writer.write_thd([evolve(job, spec=specs.get(job.id, job.spec)) for job in jobs], False)
        writer.write_thd([*held.workers, *held.removed, *held.tokens], False)
        copied = 0
        while part := reader.entries_after_thd(copied, ENTRIES_PER_TRANSACTION):
            writer.put_entries_thd(part)
            copied = part[-1].seq
        writer.put_counts_thd(held.commit_count, held.set_back_to)
    return held


def _parts(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """The jobs in parts, each for one transaction."""
    part: list[Job] = []
    size = 0
    for job in jobs:
        part.append(job)
        size += job.spec.stored
        if len(part) == JOBS_PER_TRANSACTION or size >= CHARACTERS_PER_TRANSACTION:
            yield part
            part, size = [], 0
    if part:
        yield part


def _checked(which: str, url: str) -> str:
    known = database_url(url, Path.cwd())
    if known is None:
        raise Invalid(
            which, 'must be "sqlite:////FILE", the path absolute, or "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"'
        )
    return known


@contextmanager
def _opened(which: str, url: str) -> Iterator[Writer]:
    try:
        database = prepare(url)
    except Invalid as error:
        raise Invalid(which, error.problem) from None
    if database is None:
        raise Invalid(which, "keeps nothing")
    writer = Writer(database)
    try:
        yield writer
    finally:
        writer.close_thd()
        database.release()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. If the copy fails, the reason is printed as one line, and the exit code is 1."""
    parser = argparse.ArgumentParser(prog="python -m scheduler.store.copying", description=__doc__)
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    options = parser.parse_args(arguments)
    try:
        held = copy(options.source, options.target)
    except (Invalid, StoreFailed) as error:
        raise SystemExit(str(error)) from None
    counts = {"jobs": held.jobs, "workers": held.workers, "removed jobs": held.removed, "tokens": held.tokens}
    print(", ".join(f"{len(records)} {called}" for called, records in counts.items()))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
