"""Raw bodies: the bytes of one stream of a job's output, up to a length or to the end of the job.

A raw follow reports the job's end in trailers (RFC 9110, 6.5), after the last byte.
"""

from __future__ import annotations

from typing import Protocol, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from scheduler.api.context import Context
from scheduler.api.streams import END_WAIT_MAX_SECONDS, Opening, Pull, StreamResource
from scheduler.errors import OutputCut, ShuttingDown, Unavailable
from scheduler.interfaces import IOutputReader
from scheduler.messages import Chunk
from scheduler.model import Job

#: Trailers of a raw follow.
JOB_STATE, EXIT_CODE = "X-Job-State", "X-Exit-Code"


def follow_headers(job: Job, offset: int) -> dict[str, str]:
    """The headers of a raw follow that begins at ``offset``."""
    return {
        "Content-Type": "text/plain; charset=utf-8",
        "X-Job-Id": job.id,
        "X-Output-Offset": str(offset),
        "X-Accel-Buffering": "no",
        "Trailer": f"{JOB_STATE}, {EXIT_CODE}",
    }


class Trailed(Protocol):
    """A request whose chunked response has ``trailers``, which are sent at the end of the response."""

    trailers: dict[str, str]


class RawStream(StreamResource):
    """A response with the bytes of one reader of a job's output, unchanged."""

    def __init__(
        self, context: Context, job_id: str, reader: IOutputReader, opening: Opening, at_once: bool = False
    ) -> None:
        super().__init__(context, opening, at_once)
        self._job_id = job_id
        self._pulls = [Pull(reader, self._wanted, self._deliver, self._cut)]

    def end(self) -> None:
        self._cut(Failure(ShuttingDown()))

    def _deliver(self, chunk: Chunk) -> None:
        if chunk.data:
            self._begin()
            self._write(chunk.data)
        if chunk.end and chunk.cut:
            self._cut(Failure(OutputCut(self._job_id, chunk.cut)))
        elif chunk.end:
            self._finish()


class FollowStream(RawStream):
    """A response with the bytes of one reader up to the end of the job; trailers have its state and exit code.

    ``stall``: seconds without a byte of output after which the connection is cut, ``None`` for never. Time in which the
    client reads nothing does not count.
    """

    def __init__(
        self, context: Context, job: Job, reader: IOutputReader, opening: Opening, stall: float | None
    ) -> None:
        opening = opening.of_kind(follow_headers(job, reader.offset))
        super().__init__(context, job.id, reader, opening, at_once=not job.over)
        self._stall = stall
        self._silence: IDelayedCall | None = None

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self._await_silence()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self._await_silence()

    def _begin(self) -> None:
        if not self._begun:
            super()._begin()
            self._await_silence()

    def _write(self, data: bytes) -> None:
        super()._write(data)
        self._await_silence()

    def _await_silence(self) -> None:
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        self._silence = None
        if self._stall is not None and self._begun and self._wanted():
            stalled = Unavailable(f"job {self._job_id!r} has written nothing for {self._stall:g} s")
            self._silence = self._context.clock.callLater(self._stall, self._cut, Failure(stalled))

    def _finish(self) -> None:
        self._stall = None
        self._await_silence()
        self._settle(self._context.scheduler.wait(self._job_id, END_WAIT_MAX_SECONDS), self._settled)

    def _settled(self, job: Job) -> None:
        if not job.state.final:
            self._cut(Failure(Unavailable(f"the end of job {job.id!r} is not known yet")))
            return
        self._begin()
        trailers = cast(Trailed, self._request).trailers
        trailers[JOB_STATE] = job.state.value
        if job.exit_code is not None:
            trailers[EXIT_CODE] = str(job.exit_code)
        super()._finish()

    def _close(self) -> None:
        super()._close()
        self._await_silence()
