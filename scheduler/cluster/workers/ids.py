"""The id that a registering worker gets, and the ids and names that are not free. Reads the registry, changes nothing.

An id is public, so knowing it proves nothing. An id that is made from a folder id belongs to the worker that shows this
folder id. A worker that had an id before it had a folder id shows both once. From then on the id belongs to that folder
alone, and the folder has no other id.

A worker of an earlier version has neither a folder id nor a nonce, and can prove nothing. It is believed, so that a
worker can be downgraded. It gives way, without a question, to a process that shows the folder id.

A core worker is identified by its address alone: an id that is sent never names it.
"""

from __future__ import annotations

import uuid

from scheduler.cluster.registry import Registry
from scheduler.errors import Conflict, Invalid, NameTaken, NotFound
from scheduler.messages import Registration
from scheduler.model import Worker
from scheduler.names import is_made_id

#: The namespace of the ids that are made from folder ids (RFC 4122, version 5).
_WORKERS = uuid.UUID("d0f4b5e6-5a70-4f0e-9a7c-2f1b8f6c3a51")


def id_of_folder(folder_id: str) -> str:
    """The id of the worker with that state folder; ``""`` if it gave no folder id."""
    return str(uuid.uuid5(_WORKERS, folder_id)) if folder_id else ""


def id_of_address(address: str) -> str:
    """The id of the core worker that registers at an address; nothing else identifies it."""
    return str(uuid.uuid5(_WORKERS, f"core worker at {address}"))  # no folder id has a space in it


def id_of(registry: Registry, registration: Registration, address: str) -> str:
    """An id that this scheduler gave, or one made from the folder id or address; ``""``: the worker needs a new id.

    A worker of an earlier version without such an id is taken for the worker that is known at its address.
    """
    if not registration.boot_id:
        return next((each.id for each in registry.workers.at_address(address) if each.is_core), id_of_address(address))
    folder = id_of_folder(registration.folder_id)
    held = registration.worker_id
    if held and (held == folder or may_hold(registry, registration, folder)):
        return held
    if folder or registration.nonce:
        earlier = registry.workers.of_folder(folder)
        return folder if earlier is None else earlier.id
    of_earlier = (
        each for each in registry.workers.at_address(address) if not (each.is_core or each.folder or each.nonce)
    )
    return next((each.id for each in of_earlier), "")


def shows_folder(known: Worker, worker: Worker) -> bool:
    """Whether a worker that registers with the id of ``known``, and may have it, has shown the same folder id."""
    return bool(worker.nonce) and worker.folder == folder_of(known)


def check_ids(registry: Registry, worker_id: str, name: str) -> None:
    """Raise ``Conflict`` for an id or a name by which something else is addressed: no id may equal a name.

    Raise ``Invalid`` for a name that is an id which a worker could get: any program can make such an id. Ids of earlier
    versions were random, and a machine may be named like such an id.
    """
    if any(other.id != worker_id for other in registry.workers.named(worker_id)):
        raise Conflict(f"workerID {worker_id!r} is the name of another worker")
    if registry.jobs.find(worker_id) is not None:
        raise Conflict(f"workerID {worker_id!r} is the id of a job")
    if name != worker_id and (registry.workers.find(name) is not None or registry.jobs.any_of(name)):
        raise NameTaken(f"name {name!r} is the id of another worker")
    if name != worker_id and is_made_id(name):
        raise Invalid("name", f"{name!r} is a version 5 UUID, as the ids of workers are: give this worker another name")
    if registry.jobs.find(name) is not None:
        raise NameTaken(f"name {name!r} is the id of a job")


def check_is_registered(registry: Registry, worker: Worker) -> None:
    """Raise ``NotFound`` if the worker is not registered as this process: then nothing about it may be kept."""
    now = registry.workers.find_registered(worker.id)
    if now is None or now.nonce != worker.nonce:
        raise NotFound("worker", worker.id)


def may_hold(registry: Registry, registration: Registration, folder: str) -> bool:
    """Whether a worker of ours with that folder may have the id that it sends, which is not made from its folder id.

    An unknown id may be that of a worker of an earlier version that was forgotten: then there are jobs of it.
    """
    held = registration.worker_id
    known = registry.workers.find(held)
    if known is None:
        return registry.jobs.any_of(held) and not is_made_id(held)
    if known.is_core:
        return False
    of_earlier = not folder and not registration.nonce
    return of_earlier or folder_of(known) in ("", folder)


def folder_of(known: Worker) -> str:
    """The id that is made from the worker's folder id; ``""``: it has shown none so far."""
    return known.folder or (known.id if is_made_id(known.id) else "")
