"""The network: calls between processes, which are late, lost, cut, or refused.

Theory of operation. A call is a request and an answer. Each travels for a time of its own, so they overtake each other.
Either can be lost: on its way, or because the link between the two machines is cut in that direction. The caller then
notices only that its deadline is over. The server notices that, too, and cancels its work for the call. If nothing
listens at the address, the caller is told at once that it was refused. If no machine has the address, nothing comes
back. A process that dies resets its connections, so a waiting caller is notified.

Machines keep their names, and get other IP addresses. A call goes to the machine that has the address at that time. Its
answer comes back only while both machines keep their addresses.

In every case the caller's Deferred fires: with the answer, with the error of the server, or with a ``CallFailed`` about
the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from scheduler.errors import SchedulerError, ShuttingDown
from scheduler.model import Job
from tests.simulation.loop import Loop, Timer
from tests.simulation.process import Process
from tests.simulation.trace import Trace, brief

if TYPE_CHECKING:
    from tests.simulation.flows import Flow

#: Seconds of a call, unless it has a deadline of its own.
DEADLINE = 10.0


class CallFailed(Exception):
    """No answer came. ``why`` is one of ``refused``, ``reset``, ``deadline``; the first means that nothing arrived."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@define
class Weather:
    """The state of the network. Delays in seconds; shares of 0 to 1."""

    #: The most seconds that most messages travel, and those of the ``slow`` share.
    usual: float = 0.004
    slowest: float = 0.3
    slow: float = 0.02
    lost_requests: float = 0.0
    lost_answers: float = 0.0

    def delay(self, random: Random) -> float:
        """The delay of one message."""
        if random.random() < self.slow:
            return random.uniform(self.usual, self.slowest)
        return random.uniform(self.usual / 10, self.usual)


@define(eq=False)
class Endpoint:
    """A listening process. ``server`` has the methods that calls are made on."""

    process: Process
    machine: str
    server: Any
    #: Calls without an answer; a dict, for its order.
    serving: dict[Call, None] = field(factory=dict)
    #: Streams that it has not ended.
    flows: dict[Flow, None] = field(factory=dict)


@frozen(eq=False)
class Caller:
    """The origin of calls; ``address`` is the IP address that the server sees."""

    process: Process
    machine: str
    address: str


@define(eq=False)
class Call:
    """A call, as both sides see it."""

    caller: Caller
    #: The destination as ``IP address:port``.
    address: str
    name: str
    #: Its description in the trace.
    wire: str = ""
    #: Its time by the loop's clock.
    made_at: float = 0.0
    answer: Deferred[Any] = field(factory=Deferred)
    deadline: Timer | None = None
    #: The process where it arrived, and that process's work for the call.
    endpoint: Endpoint | None = None
    work: Deferred[Any] | None = None

    @property
    def over(self) -> bool:
        """Whether the caller has its answer."""
        return self.answer.called


class Network:
    """All machines and their listening processes."""

    def __init__(self, loop: Loop, random: Random, trace: Trace) -> None:
        self.calm = Weather()
        #: The weather of each present storm, by a token of its own; the last one counts.
        self.storms: dict[object, Weather] = {}
        #: Pairs of machines (from, to) between which messages do not arrive.
        self.cut: dict[tuple[str, str], None] = {}
        #: Machines and names of calls whose answers are lost, by a token of each fault.
        self.unanswered: dict[object, tuple[str, str]] = {}
        #: The same for calls whose answers are replaced by a reset of the connection.
        self.reset: dict[object, tuple[str, str]] = {}
        self.loop = loop
        self.trace = trace
        self._random = random
        #: IP address -> machine.
        self._machines: dict[str, str] = {}
        #: (machine, port) -> the listening process
        self._endpoints: dict[tuple[str, int], Endpoint] = {}

    @property
    def weather(self) -> Weather:
        """The present weather."""
        return next(reversed(self.storms.values())) if self.storms else self.calm

    # machines and their addresses

    def attach(self, address: str, machine: str) -> None:
        """Give the machine that IP address."""
        self._machines[address] = machine

    def detach(self, address: str, machine: str) -> None:
        """Take the address from the machine; another machine that has it by now keeps it."""
        if self._machines.get(address) == machine:
            del self._machines[address]

    def machine_of(self, address: str) -> str | None:
        """The machine with that IP address; ``None`` if no running machine has it."""
        return self._machines.get(address)

    def listen(self, port: int, endpoint: Endpoint) -> None:
        """Listen at every address of the machine, until it is closed or its process ends."""
        place = (endpoint.machine, port)
        assert place not in self._endpoints, f"two processes listen at {place}"
        self._endpoints[place] = endpoint
        endpoint.process.on_end.append(lambda: self._gone(place, endpoint))

    def refuse(self, machine: str, port: int) -> Endpoint:
        """Stop listening; accepted calls are still answered."""
        return self._endpoints.pop((machine, port))

    def close(self, machine: str, port: int) -> None:
        """Stop listening; calls without an answer fail, because the process is shutting down."""
        endpoint = self.refuse(machine, port)
        for call in list(endpoint.serving):
            self._answer(endpoint, call, Failure(ShuttingDown()))
        for flow in list(endpoint.flows):
            flow.fail(ShuttingDown())

    def _gone(self, place: tuple[str, int], endpoint: Endpoint) -> None:
        if self._endpoints.get(place) is endpoint:
            del self._endpoints[place]
        for call in list(endpoint.serving):
            self._return(endpoint.machine, call, self._fail, call, "reset")
        for flow in list(endpoint.flows):
            flow.reset()

    def when_gone(self, call: Call, notify: Callable[[], None]) -> None:
        """Notify the caller when the answering process has ended, which resets the connection."""
        endpoint = call.endpoint
        assert endpoint is not None
        told = (endpoint.machine, call, call.caller.process.run, notify)
        endpoint.process.on_end.append(lambda: self._return(*told))

    # messages

    def machine_at(self, address: str) -> str | None:
        """The machine with the IP address of ``address``, which is ``host:port``."""
        return self.machine_of(address.rpartition(":")[0])

    def endpoint(self, machine: str, port: int) -> Endpoint | None:
        """The process that listens there."""
        return self._endpoints.get((machine, port))

    def reaches(self, source: str, target: str) -> bool:
        """Whether a message from one machine now arrives at the other."""
        return (source, target) not in self.cut

    def delay(self) -> float:
        """Seconds that a message sent now travels."""
        return self.weather.delay(self._random)

    def loses_request(self) -> bool:
        """Whether a request sent now is lost."""
        return self._random.random() < self.weather.lost_requests

    def loses_answer(self) -> bool:
        """Whether an answer sent now is lost."""
        return self._random.random() < self.weather.lost_answers

    def send(self, source: str, target: str, function: Callable[..., object], *args: Any) -> None:
        """Deliver a message later, unless it is lost."""
        self.loop.after(self.delay(), self._deliver, source, target, function, *args)

    def _deliver(self, source: str, target: str, function: Callable[..., object], *args: Any) -> None:
        if self.reaches(source, target):
            function(*args)

    def _return(self, machine: str, call: Call, function: Callable[..., object], *args: Any) -> None:
        """Deliver a message to the caller, unless the connection is gone with an address of one of its ends."""

        def deliver() -> None:
            here, there = self.machine_of(call.caller.address), self.machine_at(call.address)
            if (here, there) == (call.caller.machine, machine):
                self._deliver(machine, call.caller.machine, function, *args)

        self.loop.after(self.delay(), deliver)

    def unanswered_calls(self) -> Iterator[Call]:
        """Calls that a living process has begun to answer, and has not."""
        for endpoint in self._endpoints.values():
            yield from endpoint.serving

    # calls

    def call(
        self, caller: Caller, address: str, name: str, make: Callable[[Any], Any], deadline: float, wire: str = ""
    ) -> Call:
        """Call ``make`` with the server at ``address``; its result, or that of its Deferred, is the answer.

        ``deadline`` in seconds. ``wire`` is the description of the call in the trace, beside its name.
        """
        call = Call(caller, address, name, wire, self.loop.now)
        self.trace.add(caller.process.name, f"{name} -> {address} {wire}".rstrip())
        call.deadline = self.loop.after(deadline, caller.process.run, self._fail, call, "deadline")
        machine = self.machine_at(address)
        if machine is None or self.loses_request():
            self.trace.add("network", f"{name} to {address} is lost")
        else:
            self.send(caller.machine, machine, self._arrive, call, address, machine, make, deadline)
        return call

    def _arrive(self, call: Call, address: str, machine: str, make: Callable[[Any], Any], deadline: float) -> None:
        endpoint = self.endpoint(machine, int(address.rpartition(":")[2]))
        if endpoint is None:
            self._return(machine, call, self._fail, call, "refused")
            return
        if endpoint.process.began > call.made_at and not call.caller.process.alive:
            return  # no process was there to connect to
        call.endpoint = endpoint
        endpoint.serving[call] = None
        endpoint.process.run(self._serve, endpoint, call, make, deadline)

    def _serve(self, endpoint: Endpoint, call: Call, make: Callable[[Any], Any], deadline: float) -> None:
        work = call.work = maybeDeferred(make, endpoint.server)
        work.addBoth(lambda result: self._answer(endpoint, call, result))
        if call in endpoint.serving:
            self.loop.after(deadline, endpoint.process.run, self._give_up, endpoint, call)

    def _give_up(self, endpoint: Endpoint, call: Call) -> None:
        """The deadline is over for the server, too: like its hop, it cancels its work for the call."""
        if call in endpoint.serving and call.work is not None:
            call.work.cancel()

    def _answer(self, endpoint: Endpoint, call: Call, result: Any) -> None:
        if endpoint.serving.pop(call, call) is call:
            return  # it was answered before
        if isinstance(result, Failure) and result.check(CancelledError):
            return
        if isinstance(result, Failure) and not result.check(SchedulerError):
            endpoint.process.crashed(result)
        kind = (call.caller.machine, call.name)
        if kind in self.reset.values():
            self._return(endpoint.machine, call, self._fail, call, "reset")
            return
        if self.loses_answer() or kind in self.unanswered.values():
            self.trace.add("network", f"the answer to {call.name} of {call.caller.process.name} is lost")
            return
        self._return(endpoint.machine, call, call.caller.process.run, self._finish, call, result)

    def _fail(self, call: Call, why: str) -> None:
        call.caller.process.run(self._finish, call, Failure(CallFailed(why)))

    def hang_up(self, call: Call, cancels: bool = False) -> None:
        """The caller closes the connection of a call in flight.

        ``cancels``: the server then cancels its work for the call, like the HTTP server. A gRPC server of ours
        continues it.
        """
        self._finish(call, Failure(CallFailed("reset")))
        endpoint = call.endpoint
        if cancels and endpoint is not None:
            self.send(call.caller.machine, endpoint.machine, endpoint.process.run, self._give_up, endpoint, call)

    def _finish(self, call: Call, result: Any) -> None:
        if call.over:
            return
        if call.deadline is not None and call.deadline.active():
            call.deadline.cancel()
        told = result.value if isinstance(result, Failure) else None
        if told is not None and not isinstance(told, SchedulerError | CallFailed):
            result.value = told
        self.trace.add(call.caller.process.name, f"{call.name} {call.wire}".rstrip() + f" <- {_shown(result)}")
        call.answer.callback(result)  # a Failure starts the errbacks


def _shown(result: Any) -> str:
    if isinstance(result, Failure):
        return f"{type(result.value).__name__}: {result.value}"
    return brief(result) if isinstance(result, Job) else "ok"
