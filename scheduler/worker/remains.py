"""Processes of a job that has ended: those that could not be ended, and those of a job whose folder somebody removed.

They are known by id and start time, as an id alone may be another's by now. All of
it blocks.
"""

from __future__ import annotations

from scheduler.worker.shim import proctree
from scheduler.worker.shim.proctree import Process
from scheduler.worker.shim.spool import Identity, Spool, boot_id

#: Seconds to wait for those that a further KILL could be sent to; less than the call waits that asks for it.
_KILL_WAIT_MAX_SECONDS = 5.0


def end_leftover_thd(spool: Spool) -> tuple[int, ...]:
    """Kill once more what the exit record names; answers the ids of those that are there all the same.

    In a copy of the spool they are not killed: they are those of another worker. Nothing is known of processes from
    before a restart of the machine, nor of those whose start times the record of an earlier version lacks: these count
    as gone.
    """
    ended, job = spool.read_exit(), spool.read_job()
    if ended is None or job is None or job["boot_id"] != boot_id():
        return ()
    named = [Identity(*each) for each in zip(ended["leftover"], ended.get("leftover_started", ()), strict=False)]
    if spool.is_copy(job):
        return _ids([each.identity for each in proctree.still(named)])
    return _ids(proctree.end(lambda: proctree.still(named), _KILL_WAIT_MAX_SECONDS))


def tree_thd(folder: str, shim: Identity | None) -> list[Process]:
    """The processes of a job whose folder is gone, the shim the last.

    Where it is not known who had the job, those that carry the path of its folder, however old they are.
    """
    found = proctree.of_spool(folder, shim.starttime if shim else 0)
    alive = proctree.still([shim]) if shim else []
    if shim and alive:
        found += proctree.descendants([shim.pid], list(proctree.alive()))
    return [*{each.identity: each for each in found}.values(), *alive]


def end_tree_thd(folder: str, shim: Identity | None) -> tuple[int, ...]:
    """Kill these; answers the ids of those that are there all the same."""
    seen: dict[Identity, None] = {}

    def find() -> list[Process]:
        seen.update(dict.fromkeys(each.identity for each in tree_thd(folder, shim)))
        return proctree.still(list(seen))  # also those that lost their parent, and can't be found any more

    return _ids(proctree.end(find, _KILL_WAIT_MAX_SECONDS))


def _ids(identities: list[Identity]) -> tuple[int, ...]:
    return tuple(each.pid for each in identities)
