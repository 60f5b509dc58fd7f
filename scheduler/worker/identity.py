"""Which worker, and which process of it, this is: what calls to it are checked against."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from scheduler.errors import Misdirected
from scheduler.worker_interfaces import IIdentity


@implementer(IIdentity)
class Identity:
    """The scheduler may know a process by its new id before that process does: then the nonce alone decides."""

    def __init__(self, call_from_thread: Callable[[Callable[[], None]], object], folder_id: str, nonce: str) -> None:
        """``call_from_thread`` has the reactor thread call a function."""
        self.folder_id = folder_id
        self.nonce = nonce
        self.worker_id = ""
        self._call_from_thread = call_from_thread
        self._scheduler = ""
        self._notify: Callable[[], None] = lambda: None

    def on_new_scheduler(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def check_thd(self, worker_id: str, nonce: str, scheduler: str) -> None:
        another_worker = worker_id and self.worker_id and worker_id != self.worker_id
        if (nonce and nonce != self.nonce) or another_worker:
            raise Misdirected(worker_id)
        if scheduler and scheduler != self._scheduler:
            self._scheduler = scheduler
            self._call_from_thread(self._notify)
