"""Ctrl-C while a job is watched: the first stops the job, a second leaves it running.

SIGTERM and SIGHUP count as Ctrl-C, unless they were ignored when schedctl began (nohup, a background job of a shell).
One interrupt may be several signals. ``timeout`` passes on a Ctrl-C that the terminal also sends to schedctl. A
terminal that is closed sends SIGHUP, and so does its shell. Watching continues after the first interrupt. So the job's
last output is shown, and its end is the one that its worker verified.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

from scheduler.cli.status import Status
from scheduler.client import ApiProblem, Client, ClientError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds after the first signal in which further signals belong to the same interrupt.
SAME_INTERRUPT_SECONDS = 0.5

#: Seconds until a stop that could not be sent is sent again.
_STOP_AGAIN_SECONDS = 2.0


class Left(BaseException):
    """Ends the watching; the job is left running. A ``BaseException``, so that no handler takes it for a failure."""


class GaveUp(BaseException):
    """The awaited event did not happen within ``Interrupts.deadline``."""


@define(eq=False)
class Interrupts:
    """Handles interrupts; a context manager for the main thread. ``job`` sets the job that an interrupt stops.

    The signal handlers do nothing that could block. A thread sends the stop, with a separate client.
    """

    _status: Status
    _client: Callable[[], Client]
    _clock: Callable[[], float] = time.monotonic
    #: When the first signal came; ``None`` if none has.
    _interrupted_at: float | None = None
    _job_id: str | None = None
    # SimpleQueue.put is safe in a signal handler.
    _asked: queue.SimpleQueue[None] = field(factory=queue.SimpleQueue)
    _over: threading.Event = field(factory=threading.Event)
    _former: dict[int, Any] = field(factory=dict)

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._interrupt)
        self._former[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._alarm)
        return self

    def __exit__(self, *_: object) -> None:
        self.deadline(None)
        self._over.set()
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @property
    def stopping(self) -> bool:
        return self._interrupted_at is not None

    def job(self, job_id: str) -> None:
        """Set the job to stop. The stop is sent at once if the interrupt came before the job's id was known."""
        self._job_id = job_id
        threading.Thread(target=self._stop_when_asked, args=(job_id,), daemon=True).start()

    def deadline(self, seconds: float | None) -> None:
        """Raise ``GaveUp`` in the main thread after so many seconds; ``None``: never."""
        signal.setitimer(signal.ITIMER_REAL, 0 if seconds is None else max(seconds, 0.001))

    def _interrupt(self, *_: object) -> None:
        now = self._clock()
        if self._interrupted_at is not None:
            if now - self._interrupted_at < SAME_INTERRUPT_SECONDS:
                return
            raise Left
        self._interrupted_at = now
        what = "the job, once it is known whether it began" if self._job_id is None else f"job {self._job_id}"
        self._status.note(f"stopping {what}; press Ctrl-C again to leave it running")
        self._asked.put(None)

    def _alarm(self, *_: object) -> None:
        raise GaveUp

    def _stop_when_asked(self, job_id: str) -> None:
        self._asked.get()
        said = ""
        with self._client() as client:
            while not self._over.is_set():
                try:
                    job = client.stop(job_id)
                except ApiProblem as problem:
                    if problem.type == "left-running":
                        return  # the job has ended, and its end says the same
                    failure = str(problem)
                except ClientError as error:
                    failure = str(error)
                else:
                    if not job.final and not self._over.is_set():
                        self._status.note(f"job {job_id} will be stopped as soon as its worker can be told")
                    return
                if failure != said:
                    self._status.note(f"job {job_id} can't be stopped now: {failure}; trying again")
                    said = failure
                self._over.wait(_STOP_AGAIN_SECONDS)
