"""The facts of a registration, from the worker's configuration and its machine."""

from __future__ import annotations

from scheduler import __version__, registrations
from scheduler.daemon.config import WorkerSettings
from scheduler.messages import Registration
from scheduler.model import FEATURES
from scheduler.worker.shim.spool import boot_id


def registration(settings: WorkerSettings, address: str) -> Registration:
    """Make a registration without the worker's ids. The scheduler calls the worker at ``address``."""
    return Registration(
        address=address,
        name=settings.name,
        labels=settings.labels,
        slots=settings.slots,
        boot_id=boot_id(),
        version=__version__,
        features=FEATURES,
    )


def check_worker(settings: WorkerSettings) -> None:
    """Raise ``Invalid`` for a worker that every scheduler of this version would refuse."""
    registrations.check(registration(settings, ""))
