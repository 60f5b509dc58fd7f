"""Streams over the network: messages of a server to a caller, in order, over one connection.

Theory of operation. A connection keeps the order of messages, and loses nothing as long as it lives. A message that the
network can't deliver is sent again until it arrives. A connection over a link that is cut for ``DEAD_AFTER`` is given
up by both sides, and bad weather resets some. A process that ends resets its connections. The caller takes one message
at a time. A server that is ``AHEAD`` messages before it waits, so a slow caller slows the server down.

However it ends, the caller is notified once: ``finished`` fires after the last message, or fails with the server's
error, or with a ``CallFailed``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.simulation.loop import Timer
from tests.simulation.network import Caller, CallFailed, Endpoint, Network

#: Seconds after which a silent connection counts as dead, and between attempts to deliver a message.
DEAD_AFTER = 40.0
TRY_AGAIN = 1.0

#: Seconds between two checks by the caller whether the other side is still there.
LOOK = 30.0

#: Messages that a server sends before the first of them was taken.
AHEAD = 4

#: Seconds for which a caller may delay the next message.
HOLD_DEADLINE = 30.0

#: Takes a message. If it returns a Deferred, the next message waits until that fires.
Take = Callable[[Any], "Deferred[None] | None"]

#: Serves a flow with the server, and the flow to send on. An exception ends the flow.
Serve = Callable[[Any, "Flow"], None]


class Flow:
    """A connection. The caller uses ``finished`` and ``cancel``, and the server uses the rest."""

    def __init__(
        self,
        network: Network,
        caller: Caller,
        address: str,
        name: str,
        serve: Serve,
        take: Take,
        deadline: float | None = None,
        wire: str = "",
    ) -> None:
        """``serve`` is called in the process that listens at ``address``. ``deadline``: seconds for the whole flow."""
        self.finished: Deferred[None] = Deferred()
        self.name = name
        #: Called when the server may send more; and when the flow has ended.
        self.on_room: Callable[[], None] = _nothing
        self.on_gone: Callable[[], None] = _nothing
        self._network = network
        self._loop = network.loop
        self._caller = caller
        self._take = take
        self._endpoint: Endpoint | None = None
        self._over = False
        self._closed = False
        self._sent: deque[tuple[Callable[..., None], Any]] = deque()
        self._travelling = False
        self._stuck_since: float | None = None
        self._received: deque[tuple[Callable[..., None], Any]] = deque()
        self._taking = False
        self._address = address
        self._machine = network.machine_at(address)
        network.trace.add(caller.process.name, f"{name} -> {address} {wire}".rstrip())
        caller.process.on_end.append(self._caller_ended)
        self._loop.after(LOOK, self._look)
        if deadline is not None:
            caller.process.after(deadline, self._end, Failure(CallFailed("deadline")))
        self._open(address, serve)

    # -- the caller's side

    def cancel(self) -> None:
        """Hang up: nothing is taken afterwards, and ``finished`` does not fire."""
        self._close()
        self._tell_server(self._loop.now)

    def _caller_ended(self) -> None:
        self._close()
        self._tell_server(self._loop.now)

    def _arrived(self, kind: Callable[..., None], message: Any) -> None:
        self._received.append((kind, message))
        self._take_next()

    def _take_next(self) -> None:
        if self._taking or self._over or not self._received:
            return
        kind, message = self._received.popleft()
        kind(message)

    def _message(self, message: Any) -> None:
        self._taking = True
        taken = self._take(message)
        if taken is None:
            self._taken(None)
        else:
            limit = self._loop.after(HOLD_DEADLINE, self._caller.process.run, self._held_too_long, taken)
            taken.addBoth(lambda result: (limit.active() and limit.cancel(), self._taken(result)))

    def _held_too_long(self, taken: Deferred[None]) -> None:
        if not taken.called:
            self._end(Failure(CallFailed("deadline")))

    def _taken(self, _: object) -> None:
        self._taking = False
        endpoint = self._endpoint
        if endpoint is not None and not self._closed and self.room:
            endpoint.process.after(self._network.delay(), self._tell_room)
        self._take_next()

    def _end(self, result: Failure | None) -> None:
        """Report the end to the caller."""
        if self._over:
            return
        self._close()
        shown = "ok" if result is None else f"{type(result.value).__name__}: {result.value}"
        self._network.trace.add(self._caller.process.name, f"{self.name} <- {shown}")
        self._tell_server(self._loop.now)
        self.finished.callback(result)  # a Failure starts the errbacks

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self._received.clear()
            if self._caller_ended in self._caller.process.on_end:
                self._caller.process.on_end.remove(self._caller_ended)

    def _look(self) -> None:
        """A connection without traffic is dead if the link is cut for long."""
        if self._over:
            return
        if self._is_cut():
            self._loop.after(DEAD_AFTER - LOOK, self._look_again)
        self._loop.after(LOOK, self._look)

    def _look_again(self) -> None:
        if self._is_cut():
            self._caller.process.run(self._end, Failure(CallFailed("reset")))

    def _is_cut(self) -> bool:
        here = self._caller.machine
        return self._machine is None or not (self._reaches(here, self._machine) and self._reaches(self._machine, here))

    def _reaches(self, source: str, target: str) -> bool:
        """Whether a message sent now arrives: no link is cut, and the server's machine still has its address."""
        return self._network.machine_at(self._address) == self._machine and self._network.reaches(source, target)

    # -- on the way

    def _open(self, address: str, serve: Serve) -> None:
        machine = self._machine
        if machine is None or self._network.loses_request():
            self._caller.process.after(DEAD_AFTER, self._end, Failure(CallFailed("reset")))
            return
        self._loop.after(self._network.delay(), self._opened, machine, address, serve)

    def _opened(self, machine: str, address: str, serve: Serve) -> None:
        if self._over:
            return
        if not self._reaches(self._caller.machine, machine):
            self._caller.process.after(DEAD_AFTER, self._end, Failure(CallFailed("reset")))
            return
        endpoint = self._network.endpoint(machine, int(address.rpartition(":")[2]))
        if endpoint is None:
            self._network.send(machine, self._caller.machine, self._told, Failure(CallFailed("refused")))
            return
        self._endpoint = endpoint
        endpoint.flows[self] = None
        endpoint.process.run(self._serve, endpoint, serve)

    def _told(self, result: Failure) -> None:
        self._caller.process.run(self._end, result)

    def _serve(self, endpoint: Endpoint, serve: Serve) -> None:
        if not self._closed:
            serve(endpoint.server, self)

    def _travel(self) -> None:
        """Send the first message that has not arrived."""
        if not self._travelling and self._sent:
            self._travelling = True
            self._loop.after(self._network.delay(), self._deliver)

    def _deliver(self) -> None:
        endpoint = self._endpoint
        if self._over or endpoint is None or not self._sent:
            return
        if not self._reaches(endpoint.machine, self._caller.machine):
            now = self._loop.now
            self._stuck_since = now if self._stuck_since is None else self._stuck_since
            if now - self._stuck_since > DEAD_AFTER:
                self.reset()
            else:
                self._loop.after(TRY_AGAIN, self._deliver)
            return
        self._stuck_since = None
        if self._network.loses_answer():
            self._network.trace.add("network", f"the connection of {self.name} of {self._caller.process.name} is reset")
            self.reset()
            return
        self._travelling = False
        kind, message = self._sent.popleft()
        self._caller.process.run(self._arrived, kind, message)
        self._travel()

    def reset(self) -> None:
        """Reset the connection. Both sides are notified, the caller once a packet reaches it."""
        self._gone()
        self._loop.after(self._network.delay(), self._reset_arrives, self._loop.now)

    def _reset_arrives(self, since: float) -> None:
        if self._over:
            return
        endpoint = self._endpoint
        late = self._loop.now - since > DEAD_AFTER
        if endpoint is None or late or self._reaches(endpoint.machine, self._caller.machine):
            self._caller.process.run(self._end, Failure(CallFailed("reset")))
        else:
            self._loop.after(TRY_AGAIN, self._reset_arrives, since)

    def _tell_server(self, since: float) -> None:
        """The caller is gone. The server notices once a packet reaches it."""
        endpoint = self._endpoint
        if endpoint is None or self._closed:
            return
        late = self._loop.now - since > DEAD_AFTER
        if late or self._reaches(self._caller.machine, endpoint.machine):
            self._loop.after(self._network.delay(), self._gone)
        else:
            self._loop.after(TRY_AGAIN, self._tell_server, since)

    # -- the server's side

    @property
    def room(self) -> bool:
        """Whether more may be sent now; ``on_room`` is called when that becomes true."""
        return not self._closed and len(self._sent) + len(self._received) + self._taking < AHEAD

    def send(self, message: Any) -> None:
        """Send a message after all previous ones."""
        self._put(self._message, message)

    def finish(self) -> None:
        """End the flow properly after the last message."""
        self._put(self._end, None)
        self._let_go()

    def fail(self, error: Exception) -> None:
        """End the flow with an error, which the caller gets after the last message."""
        self._put(self._end, Failure(error))
        self._let_go()

    def after(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call a function in the server's process later."""
        assert self._endpoint is not None
        return self._loop.after(seconds, self._endpoint.process.run, function)

    def _put(self, kind: Callable[..., None], message: Any) -> None:
        if not self._closed:
            self._sent.append((kind, message))
            self._travel()

    def _tell_room(self) -> None:
        if self.room:
            self.on_room()

    def _let_go(self) -> None:
        """The server has nothing more to do with it."""
        self._closed = True
        if self._endpoint is not None:
            self._endpoint.flows.pop(self, None)

    def _gone(self) -> None:
        """The connection has ended for the server."""
        endpoint = self._endpoint
        if endpoint is not None and not self._closed:
            self._let_go()
            endpoint.process.run(self.on_gone)


def _nothing() -> None:
    """Called for a flow that is not served yet."""
