"""Identifies this worker and this process of it: for its scheduler, and for incoming calls, which are checked.

The id that the scheduler gave this worker is kept in a file, for the next process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger
from zope.interface import implementer

from scheduler import __version__, registrations
from scheduler.daemon import drafts
from scheduler.daemon.config import WorkerSettings
from scheduler.errors import Misdirected
from scheduler.messages import Registration
from scheduler.model import FEATURES
from scheduler.texts import is_core_id
from scheduler.worker.shim.spool import boot_id
from scheduler.worker_interfaces import IHeldId, IOwnIds

#: Processes of the scheduler that are remembered. So a few that call in turns are each new once.
_KNOWN_SCHEDULERS_MAX = 16


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


@implementer(IOwnIds)
class OwnIds:
    """The ids of this process. A call with a nonce is checked by the nonce, any other one by the worker id.

    The scheduler may know this process by a new worker id before the process itself does.
    """

    def __init__(self, call_from_thread: Callable[[Callable[[], None]], object], folder_id: str, nonce: str) -> None:
        """``call_from_thread`` makes the reactor thread call a function."""
        self.folder_id = folder_id
        self.nonce = nonce
        self.worker_id = ""
        self._call_from_thread = call_from_thread
        self._lock = threading.Lock()
        self._schedulers: deque[str] = deque(maxlen=_KNOWN_SCHEDULERS_MAX)
        self._notify: Callable[[], None] = lambda: None

    def on_new_scheduler(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def check_thd(self, worker_id: str, nonce: str, scheduler: str) -> None:
        if nonce != self.nonce if nonce else worker_id and self.worker_id and worker_id != self.worker_id:
            raise Misdirected(worker_id)
        if scheduler and self._is_new(scheduler):
            self._call_from_thread(self._notify)

    def _is_new(self, scheduler: str) -> bool:
        with self._lock:
            if scheduler in self._schedulers:
                return False
            self._schedulers.append(scheduler)
            return True


@implementer(IHeldId)
class IdFile:
    """The file of the id. It is written whole or not at all."""

    _log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        try:
            held = self._path.read_text(encoding="utf-8").removesuffix("\n")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            self._log.warn("{file} can't be read, so a new id is asked for: {why}", file=self._path, why=str(error))
            return ""
        if not is_core_id(held):
            self._log.warn("{file} holds no id, so a new one is asked for", file=self._path)
            return ""
        return held

    def write(self, worker_id: str) -> None:
        try:
            drafts.replace(str(self._path), f"{worker_id}\n".encode())
        except OSError as error:
            self._log.error("{file} can't be written: {why}", file=self._path, why=str(error))
