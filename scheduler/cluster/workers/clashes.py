"""Registrations that want the id, the name or the address of another process.

An id, a name and an address belong to one process. The process that registered keeps them as long as it answers. So it
is asked, on a new connection, and if it answers, the newcomer is refused. If nobody listens there, nobody answers, or
another process answers, the newcomer gets them: a worker that was killed and started again does not have to wait. A
process without a nonce can't be distinguished from others by its answers. It keeps what it has as long as it is online
and something answers.

While a process is asked, other workers may register. So the clashes are looked for again after each answer, until every
process in the way was asked. A process is asked once for each registration. No second process is asked at an address
where nobody answers, or where the newcomer answers.

A question without an answer takes 2 s, and the registration holds a thread of the server meanwhile. So the number of
registrations that ask at a time is limited, and further ones have to try again: heartbeats need threads, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from attrs import frozen
from twisted.logger import Logger

from scheduler.cluster.registry import Registry
from scheduler.cluster.workers.ids import shows_folder
from scheduler.errors import Busy, Conflict, NameTaken, SchedulerError
from scheduler.interfaces import IWorkerClient
from scheduler.model import Worker

#: Registrations that ask at a time: half as many as the server for workers has threads.
MAX_ASKING = 16


@frozen
class Clash:
    """An entry in the way of a worker that registers."""

    #: The process that is asked whether it answers.
    asked: Worker
    #: Raised if it answers.
    refusal: SchedulerError
    #: Its answer counts only if this process, the newcomer at the same address, does not answer.
    unless: Worker | None = None

    @property
    def process(self) -> tuple[str, str, str]:
        """The process that is asked: its id, nonce and address."""
        return self.asked.id, self.asked.nonce, self.asked.address


def clashes(registry: Registry, worker: Worker) -> Iterator[Clash]:
    """The entries in the way of ``worker``, a newcomer as it would be known. Offline entries are not in the way."""
    known = registry.workers.find(worker.id)
    if known is not None and not known.is_offline:
        yield from _about_id(known, worker, registry.presences.of(known.id).is_online)
    for other in registry.workers.named(worker.name):
        is_believed = other.address == worker.address and not other.nonce  # nothing else identifies the other
        if other.id != worker.id and not other.is_offline and not is_believed:
            yield Clash(other, NameTaken(_OF_NAME.format(worker.name, other.id, other.address)))
    for other in registry.workers.at_address(worker.address):
        if other.id == worker.id or other.is_offline:
            continue
        refusal = Conflict(_OF_ADDRESS.format(worker.address, other.name, other.id))
        if other.nonce:
            yield Clash(other, refusal)
        elif worker.nonce:  # an answer of the other does not show which of the two it is
            yield Clash(other, refusal, unless=worker)
        elif registry.presences.of(other.id).is_online and other.is_core != worker.is_core:  # the known one stays
            yield Clash(other, refusal)


_OF_ID = (
    "worker {!r} ({}) is registered by another process, which answers at {}: stop that one; "
    "or, if this worker's state folder is a copy, start it once with --new-id"
)
_OF_NAME = (
    "name {!r} is taken by worker {}, which answers at {}: give this worker another [worker] name, or stop that one"
)
_OF_ADDRESS = "address {} is that of worker {!r} ({}), which answers there: give this worker an address of its own"


def _about_id(known: Worker, worker: Worker, is_online: bool) -> Iterator[Clash]:
    """The clash with the process that has the id, if the newcomer is another process.

    A process without a nonce is asked only while it sends heartbeats: later, any program may answer at its address. It
    is not asked if the newcomer has shown its folder id.
    """
    refusal = Conflict(_OF_ID.format(known.name, known.id, known.address))
    if known.nonce:
        if known.nonce != worker.nonce:
            yield Clash(known, refusal)
    elif known.is_core or not is_online or shows_folder(known, worker):
        return
    elif known.address != worker.address:
        yield Clash(known, refusal)
    elif worker.nonce:
        yield Clash(known, refusal, unless=worker)


class Clashes:
    """Refuses newcomers that clash with a process which still answers."""

    _log = Logger()

    def __init__(self, registry: Registry, client: IWorkerClient) -> None:
        self._registry = registry
        self._client = client
        # id of a worker -> the refusals of its newcomers that were logged
        self._logged: dict[str, set[str]] = {}
        # registrations that ask
        self._asking = 0

    @property
    def idle(self) -> bool:
        """Whether no registration is asking, and nothing is kept about unknown workers."""
        return not self._asking and all(map(self._registry.workers.find, self._logged))

    def forget(self, worker_id: str) -> None:
        """Forget what was logged about a worker that has registered, or is gone."""
        self._logged.pop(worker_id, None)

    async def settle(self, as_registered: Callable[[], Worker]) -> Worker:
        """The worker, once nothing is in its way. Raises ``Conflict`` or ``NameTaken`` if a process in the way answers.

        Raises ``Busy`` if too many registrations ask. ``as_registered`` makes the worker from what is known at that
        moment; it is called again after each question. The caller must go on in the same turn of the reactor: later,
        something may be in the way again.
        """
        questions = _Questions(self._client)
        while True:
            worker = as_registered()
            clash = questions.choose(clashes(self._registry, worker))
            if clash is None:
                return worker
            if self._asking >= MAX_ASKING:
                raise Busy("places for registrations that ask who answers", MAX_ASKING)
            self._asking += 1
            try:
                refused = await questions.ask(clash, worker)
            finally:
                self._asking -= 1
            if refused:
                self._log_refusal(worker, clash)
                raise clash.refusal

    def _log_refusal(self, worker: Worker, clash: Clash) -> None:
        """Log a refusal, once for each worker that is in the way."""
        known = clash.asked.id
        text = str(clash.refusal)
        if text not in self._logged.get(known, ()):
            if self._registry.workers.find(known) is not None:
                self._logged.setdefault(known, set()).add(text)
            self._log.warn("a worker at {address} is refused: {why}", address=worker.address, why=text)


class _Questions:
    """The questions that one registration has asked, and still has to ask."""

    def __init__(self, client: IWorkerClient) -> None:
        self._client = client
        # processes of which it is known whether they answer, as in ``Clash.process``
        self._settled: set[tuple[str, str, str]] = set()
        # address that was asked -> processes that gave it as theirs
        self._at_address: dict[str, set[tuple[str, str, str]]] = {}
        # addresses where a process answers that was not the one asked
        self._of_another: set[str] = set()
        self._newcomer_asked = False

    def choose(self, found: Iterable[Clash]) -> Clash | None:
        """The next clash to ask about; ``None``: there is none."""
        left = [clash for clash in found if clash.process not in self._settled]
        if not left:
            return None
        address = left[0].asked.address
        self._at_address[address] = {clash.process for clash in left if clash.asked.address == address}
        return left[0]

    async def ask(self, clash: Clash, newcomer: Worker) -> bool:
        """Whether the process in the way answers."""
        address = clash.asked.address
        there = self._at_address[address]  # not those that come while it is asked
        if self._may_be(newcomer, address):
            self._newcomer_asked = True
            if await self._client.answers(newcomer):
                self._settled |= there
                return False
        self._settled.add(clash.process)
        answers = await self._client.answers(clash.asked)
        if answers is None:
            self._settled |= there
        elif not answers:
            self._of_another.add(address)
        elif clash.unless is None or not await self._client.answers(clash.unless):
            return True
        return False

    def _may_be(self, newcomer: Worker, address: str) -> bool:
        """Whether the newcomer may be the process that answers at ``address``, and has to be asked."""
        is_there = address == newcomer.address and address in self._of_another
        return is_there and bool(newcomer.nonce) and not self._newcomer_asked
