"""The errors of the client. A job that failed is an error only if the caller asks for that with ``check``.

Three cases are separate: the scheduler refused (``ApiProblem``), no answer came (``ConnectionFailed``), and the job
itself did not succeed (``JobFailed``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from scheduler.client.values import Job, Result

#: Whether the job of a submission was started; ``None`` if the error is not about a submission.
Started = bool | Literal["unknown"] | None


class ClientError(Exception):
    """The root of the client's errors; ``str()`` is a sentence.

    - ``started``: ``True``: the job was started and may still run. ``False``: nothing was
      started, and the same call can be made again. ``"unknown"``: it may have been started.
      ``None``: the call was not one that starts a job.
    - ``job_id``: the job that the error is about, if it is known.
    """

    def __init__(self, message: str, *, started: Started = None, job_id: str | None = None) -> None:
        super().__init__(message)
        self.started = started
        self.job_id = job_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the attributes, since the arguments of subclasses differ from ``args``."""
        return _made_again, (type(self), self.args), self.__dict__


class ConnectionFailed(ClientError):
    """No complete answer came: refused, cut, or too late. The repetitions within ``patience`` failed, too."""


class ApiProblem(ClientError):
    """The scheduler answered with a problem document (RFC 9457)."""

    def __init__(
        self, status: int, document: Mapping[str, Any], *, started: Started = None, job_id: str | None = None
    ) -> None:
        """``document`` is the JSON of the answer; ``{}`` if it has none."""
        #: The HTTP status.
        self.status = status
        #: The last part of the document's ``type``, such as ``"worker-unknown"``; ``""`` if it has no ``type``.
        self.type = _slug(document.get("type"))
        #: The reason, as a sentence.
        self.detail = str(document.get("detail") or document.get("title") or f"HTTP status {status}")
        self.document = document
        super().__init__(self.detail, started=started, job_id=job_id)


class OutputLost(ClientError):
    """Requested output is missing: it is no longer kept, or was never kept in full (410).

    ``result``: the job and the existing output, if ``run`` raises this.
    """

    def __init__(
        self, message: str, *, started: Started = None, job_id: str | None = None, result: Result | None = None
    ) -> None:
        super().__init__(message, started=started, job_id=job_id)
        self.result = result


class JobFailed(ClientError):
    """The job did not succeed, and ``check`` was set. Compare ``subprocess.CalledProcessError``."""

    def __init__(self, result: Result) -> None:
        job = result.job
        super().__init__(f"job {job.id} {job.state}: {job.reason or 'no reason is known'}", started=True, job_id=job.id)
        self.result = result

    @property
    def job(self) -> Job:
        return self.result.job

    @property
    def exit_code(self) -> int | None:
        """The exit code as in ``Result``: ``None`` if a signal ended the job, or the code is not known."""
        return self.result.exit_code

    @property
    def stdout(self) -> bytes:
        return self.result.stdout

    @property
    def stderr(self) -> bytes:
        return self.result.stderr


class WaitTimedOut(ClientError, TimeoutError):
    """The job has not ended within the time given to ``wait``; ``job`` is its present state."""

    def __init__(self, job: Job, seconds: float) -> None:
        super().__init__(f"job {job.id} has not ended within {seconds:g} s", job_id=job.id)
        self.job = job


def _made_again(kind: type[ClientError], args: tuple[Any, ...]) -> ClientError:
    made = kind.__new__(kind)
    made.args = args
    return made


def _slug(kind: Any) -> str:
    if not isinstance(kind, str) or kind == "about:blank":
        return ""
    return kind.rstrip("/").rpartition("/")[2]
