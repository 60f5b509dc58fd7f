"""The names in a worker's certificate, compared with the entries that its calls are about.

An entry belongs to the name under which it registered. A worker may act only on entries of names that its certificate
permits, whatever folder id, worker id or address it shows. A worker that lost its name to another process with the same
certificate is called by its id: such an entry belongs to no name, until the worker has registered again, with the
folder id that it showed before. A core worker, and one of an earlier version, has none, and is believed.

Selectors choose by the label ``name``, too, so it states no other name either.
"""

from __future__ import annotations

from attrs import evolve

from scheduler.cluster.workers.ids import folder_of, id_of_folder
from scheduler.errors import NotFound, Refused
from scheduler.messages import Peer, Registration
from scheduler.model import Worker


def with_name(registration: Registration, peer: Peer) -> Registration:
    """The registration, with the name in the certificate if it has none.

    Raises ``Refused`` for another name, also in the label ``name``.
    """
    if not peer.names:
        return registration
    labelled = registration.labels.get("name")
    if labelled is not None and labelled not in peer.names:
        raise Refused(f"label name = {labelled!r} is not the name in the certificate, {peer.names[0]!r}")
    if not registration.name:
        return evolve(registration, name=peer.names[0])
    if registration.name not in peer.names:
        raise Refused(f"name {registration.name!r} is not that in the certificate, {peer.names[0]!r}")
    return registration


def check_sender(worker: Worker, peer: Peer) -> None:
    """Raise ``Refused`` if the caller is not the worker, ``NotFound`` if it must show first that it is."""
    if not peer.names or worker.name in peer.names:
        return
    if worker.name == worker.id:
        raise NotFound("worker", worker.id)
    raise Refused(f"worker id {worker.id!r} was not given to {peer.names[0]!r}, the name in the certificate")


def check_takes_over(known: Worker | None, registration: Registration, peer: Peer) -> None:
    """Raise ``Refused`` if a registration would take over an entry of another name, or of no name."""
    if known is None or not peer.names or known.name in peer.names:
        return
    if known.name == known.id:
        if known.is_core or folder_of(known) in ("", id_of_folder(registration.folder_id)):
            return
        raise Refused(f"the entry {known.id!r} is that of another state folder")
    raise Refused(
        f"the entry {known.id!r} belongs to worker {known.name!r}, and the certificate is that of {peer.names[0]!r}: "
        f"forget worker {known.name!r} first; a worker that was renamed can be started once with --new-id instead"
    )
