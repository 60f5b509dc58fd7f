"""The network: calls between processes, which are late, lost, cut, or come to nobody.

Theory of operation. A call is a request and an answer. Each travels for a time of its own, so
they overtake each other. Either can be lost: on its way, or because the link between the two
machines is cut in that direction. The caller then learns no more than that its deadline is over,
and so does the server, which cancels what it does for the call. Where nobody listens at the
address the caller is told at once that it was refused; where no machine has the address, nothing
comes back. A process that dies resets its connections, so a caller that waits for it is told.

Machines keep their names, and get other IP addresses: a call goes to the machine that has the
address then, and its answer comes back only while both machines have the addresses it began with.

Whatever happens, the caller's Deferred fires: with the answer, with the error of the server, or with
a ``CallFailed`` that says what is known of the request.
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


class CallFailed(Exception):
    """No answer came. ``why`` is one of ``refused``, ``reset``, ``deadline``; the first means that nothing arrived."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@define
class Weather:
    """How the network is at present. Delays in seconds; shares of 0 to 1."""

    #: Most messages travel as long as the first of these at most, ``slow`` of them up to the second.
    usual: float = 0.004
    slowest: float = 0.3
    slow: float = 0.02
    lost_requests: float = 0.0
    lost_answers: float = 0.0

    def delay(self, random: Random) -> float:
        """Of one message."""
        if random.random() < self.slow:
            return random.uniform(self.usual, self.slowest)
        return random.uniform(self.usual / 10, self.usual)


@define(eq=False)
class Endpoint:
    """A listening process. ``server`` is what calls are made on."""

    process: Process
    machine: str
    server: Any
    #: Calls that it has not answered; a dict, for its order.
    serving: dict[Call, None] = field(factory=dict)
    #: Streams that it has not ended.
    flows: dict[Flow, None] = field(factory=dict)


@frozen(eq=False)
class Caller:
    """Where calls come from: ``address`` is the IP address that the server sees."""

    process: Process
    machine: str
    address: str


@define(eq=False)
class Call:
    """One call, as both sides have it."""

    caller: Caller
    #: Where to, as ``IP address:port``.
    address: str
    name: str
    #: What is called, in the trace.
    wire: str = ""
    #: By the loop's clock.
    made_at: float = 0.0
    answer: Deferred[Any] = field(factory=Deferred)
    deadline: Timer | None = None
    #: Where it arrived, and what the server does for it.
    endpoint: Endpoint | None = None
    work: Deferred[Any] | None = None

    @property
    def over(self) -> bool:
        """Whether the caller has its answer."""
        return self.answer.called


class Network:
    """All machines and what they listen at."""

    def __init__(self, loop: Loop, random: Random, trace: Trace) -> None:
        self.calm = Weather()
        #: The weather of each storm under way, by a token of its own; the last one counts.
        self.storms: dict[object, Weather] = {}
        #: Pairs of machines, from and to: what is sent that way does not arrive.
        self.cut: dict[tuple[str, str], None] = {}
        #: Machines and names of calls, by a token of each fault: what is answered to these calls is lost.
        self.unanswered: dict[object, tuple[str, str]] = {}
        #: The same: when these calls are answered the connection is reset, so the caller knows no more than that.
        self.reset: dict[object, tuple[str, str]] = {}
        self.loop = loop
        self.trace = trace
        self._random = random
        #: IP address -> machine.
        self._machines: dict[str, str] = {}
        #: (machine, port) -> who listens there.
        self._endpoints: dict[tuple[str, int], Endpoint] = {}

    @property
    def weather(self) -> Weather:
        """As it is now."""
        return next(reversed(self.storms.values())) if self.storms else self.calm

    # machines and their addresses

    def attach(self, address: str, machine: str) -> None:
        """The machine has that IP address now."""
        self._machines[address] = machine

    def detach(self, address: str, machine: str) -> None:
        """The machine has it no more; if another one has it by now, it keeps it."""
        if self._machines.get(address) == machine:
            del self._machines[address]

    def machine_of(self, address: str) -> str | None:
        """The machine that has that IP address; ``None``: none that is on."""
        return self._machines.get(address)

    def listen(self, port: int, endpoint: Endpoint) -> None:
        """It listens at every address of its machine, until it is closed or its process ends."""
        place = (endpoint.machine, port)
        assert place not in self._endpoints, f"two processes listen at {place}"
        self._endpoints[place] = endpoint
        endpoint.process.on_end.append(lambda: self._gone(place, endpoint))

    def refuse(self, machine: str, port: int) -> Endpoint:
        """The process listens no more, and still answers what it was asked."""
        return self._endpoints.pop((machine, port))

    def close(self, machine: str, port: int) -> None:
        """The process listens no more; the calls that it has not answered fail, as it is shutting down."""
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
        """Tell the caller when the process that answered is no more, which resets the connection."""
        endpoint = call.endpoint
        assert endpoint is not None
        told = (endpoint.machine, call, call.caller.process.run, notify)
        endpoint.process.on_end.append(lambda: self._return(*told))

    # messages

    def machine_at(self, address: str) -> str | None:
        """The machine that has the IP address of ``address``, which is ``host:port``."""
        return self.machine_of(address.rpartition(":")[0])

    def endpoint(self, machine: str, port: int) -> Endpoint | None:
        """Who listens there."""
        return self._endpoints.get((machine, port))

    def reaches(self, source: str, target: str) -> bool:
        """Whether what one machine sends now arrives at the other."""
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
        """Deliver something later, unless it is lost."""
        self.loop.after(self.delay(), self._deliver, source, target, function, *args)

    def _deliver(self, source: str, target: str, function: Callable[..., object], *args: Any) -> None:
        if self.reaches(source, target):
            function(*args)

    def _return(self, machine: str, call: Call, function: Callable[..., object], *args: Any) -> None:
        """The same, back to the caller, unless the connection is gone with an address of one of its ends."""

        def deliver() -> None:
            here, there = self.machine_of(call.caller.address), self.machine_at(call.address)
            if (here, there) == (call.caller.machine, machine):
                self._deliver(machine, call.caller.machine, function, *args)

        self.loop.after(self.delay(), deliver)

    def unanswered_calls(self) -> Iterator[Call]:
        """Those that a living process has begun to answer, and has not."""
        for endpoint in self._endpoints.values():
            yield from endpoint.serving

    # calls

    def call(
        self, caller: Caller, address: str, name: str, make: Callable[[Any], Any], deadline: float, wire: str = ""
    ) -> Call:
        """Call ``make`` with the server at ``address``; what it returns, or its Deferred fires with, is the answer.

        ``deadline`` in seconds. ``wire`` is how the call shows in the trace, beside its name.
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
            return  # nobody is there who could have connected to this process
        call.endpoint = endpoint
        endpoint.serving[call] = None
        endpoint.process.run(self._serve, endpoint, call, make, deadline)

    def _serve(self, endpoint: Endpoint, call: Call, make: Callable[[Any], Any], deadline: float) -> None:
        work = call.work = maybeDeferred(make, endpoint.server)
        work.addBoth(lambda result: self._answer(endpoint, call, result))
        if call in endpoint.serving:
            self.loop.after(deadline, endpoint.process.run, self._give_up, endpoint, call)

    def _give_up(self, endpoint: Endpoint, call: Call) -> None:
        """The deadline is over for the server, too: as its hop does, it cancels what was done for the call."""
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
        """The caller closes the connection of a call under way.

        ``cancels``: the server then cancels what it does for the call, as the HTTP server does. A gRPC server of ours
        carries it on.
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
