"""HTTP requests of the system tests, over real sockets.

Requests of ordinary users are made by ``TwistedClient``; tests get the JSON of its answers. Requests whose status,
headers or cuts matter to a test are made here, because that client repairs failures.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone

from scheduler.client import TwistedClient
from tests.system.conftest import Daemon


def pause(seconds: float) -> Deferred[None]:
    """Wait between two attempts of a poll. No test's outcome depends on the length."""
    return deferLater(reactor, seconds, lambda: None)


class Download(Protocol):
    """Collects a body. ``limit`` cuts the connection after so many bytes; ``nap`` slows reading down."""

    def __init__(self, limit: int | None = None, nap: float = 0.0, job_id: str = "") -> None:
        """``job_id``: the job that the request started, if it did."""
        self.job_id = job_id
        self.body = bytearray()
        self.ended: Deferred[bool] = Deferred()
        self._wanted: tuple[int, Deferred[None]] | None = None
        self._limit = limit
        self._nap = nap

    def dataReceived(self, data: bytes) -> None:
        self.body += data
        self._look()
        if self._limit is not None and len(self.body) >= self._limit:
            self._limit = None
            self.transport.abortConnection()
        elif self._nap:
            self.transport.pauseProducing()
            reactor.callLater(self._nap, self._go_on)

    def has(self, size: int) -> Deferred[None]:
        """Fires once so many bytes have arrived."""
        self._wanted = size, Deferred()
        reached = self._wanted[1]
        self._look()
        return reached

    def _look(self) -> None:
        if self._wanted is not None and len(self.body) >= self._wanted[0]:
            wanted, self._wanted = self._wanted, None
            wanted[1].callback(None)

    def hurry(self) -> None:
        """Read without naps from now on."""
        self._nap = 0.0

    def _go_on(self) -> None:
        if not self.ended.called:
            self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fires with whether the body ended properly."""
        self.ended.callback(reason.check(ResponseDone) is not None)


class Api:
    """The API of one scheduler, at its present address."""

    def __init__(self, scheduler: Daemon) -> None:
        self._scheduler = scheduler
        self._agent = Agent(reactor)
        self._clients: dict[str, TwistedClient] = {}

    def url(self, path: str) -> str:
        return f"http://{self._scheduler.endpoints['http']}{path}"

    @property
    def client(self) -> TwistedClient:
        url = self.url("")
        if url not in self._clients:
            self._clients[url] = TwistedClient(reactor, url)
        return self._clients[url]

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Make a request; its status and document."""
        data = None if body is None else json.dumps(body).encode()
        answer = await treq.request(
            method,
            self.url(path),
            data=data,
            headers={**headers, "Content-Type": "application/json"},
            agent=self._agent,
            timeout=60,
        )
        text = await answer.content()
        return answer.code, json.loads(text) if text else None

    async def get(self, path: str) -> Any:
        status, document = await self.call("GET", path)
        assert status == 200, document
        return document

    async def submit(self, **job: Any) -> str:
        """Start a job, on ``w1`` by default; its id."""
        if "selector" not in job:
            job.setdefault("worker", "w1")
        return (await self.client.submit(**job)).id

    async def job(self, job_id: str) -> Any:
        return (await self.client.job(job_id)).data

    async def ended(self, job_id: str, seconds: int = 60) -> Any:
        """The job at its end."""
        return (await self.client.wait(job_id, seconds)).data

    async def until(self, path: str, ready: Any, tries: int = 600) -> Any:
        """The document at ``path`` once ``ready`` accepts it; fails after about 30 s."""
        for _ in range(tries):
            status, document = await self.call("GET", path)
            if status == 200 and ready(document):
                return document
            await pause(0.05)
        raise AssertionError(f"{path} stays {document}")

    async def online(self, *names: str) -> list[Any]:
        """All workers, once the named ones, or ``w1``, are online; fails after about 30 s."""
        for _ in range(600):
            workers = await self.client.workers()
            if {worker.name for worker in workers if worker.state == "online"} >= set(names or ("w1",)):
                return [worker.data for worker in workers]
            await pause(0.05)
        raise AssertionError(f"workers stay {workers}")

    async def open(
        self,
        path: str,
        limit: int | None = None,
        nap: float = 0.0,
        job: dict[str, Any] | None = None,
        events: bool = False,
    ) -> Download:
        """A body as it arrives, optionally as ``events``. With ``job``, the body of the answer to its submission."""
        data = None if job is None else json.dumps({"worker": "w1", **job}).encode()
        method = "GET" if job is None else "POST"
        headers = {"Accept": "text/event-stream"} if events else {}
        answer = await treq.request(
            method, self.url(path), data=data, headers=headers, agent=self._agent, unbuffered=True
        )
        assert answer.code in (200, 201), await answer.content()
        download = Download(limit, nap, "".join(answer.headers.getRawHeaders("X-Job-Id", [])))
        answer.original.deliverBody(download)
        return download

    async def follow(self, job_id: str, stream: str = "stdout") -> bytes:
        """A whole stream, resumed after each cut."""
        body = bytearray()
        await self.client.output(job_id, stream, follow=True).each(body.extend)
        return bytes(body)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def online_api(scheduler: Daemon) -> Api:
    """The API of a scheduler whose worker ``w1`` is online."""
    api = Api(scheduler)
    await api.online()
    return api
