"""The worker process that a call is meant for, and the process that answers it.

Theory of operation. A worker's address does not prove which process listens there: its machine may have another address
by now, and another worker may have this one. So the metadata of each call names the worker and the process that it is
meant for. The server compares both before anything else runs. The trailing metadata of the answer names the process
that answered. This detects a program that ignores the metadata of calls: a core worker, or a worker of an earlier
version. A stream also names its process before its first message.

The name is not sent before a unary answer: gRPC would need a batch of its own for that, which costs a third of a small
call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import grpc
from attrs import frozen

from scheduler.daemon.logs import METADATA_KEY, REQUEST_ID
from scheduler.errors import Misdirected
from scheduler.model import Worker
from scheduler.rpc import status
from scheduler.rpc.admission import wrapped
from scheduler.rpc.channel import Metadata
from scheduler.worker_interfaces import IOwnIds

#: Keys of a call's metadata: the id and the nonce of the worker that it is meant for, and the nonce of the caller.
WORKER_ID_KEY, WORKER_NONCE_KEY, SCHEDULER_NONCE_KEY = (
    "scheduler-worker-id",
    "scheduler-worker-nonce",
    "scheduler-nonce",
)


@frozen
class Addressee:
    """The receiver of a call: the worker's name, and the nonce of its process (``""``: unknown).

    ``metadata`` is sent with the call.
    """

    name: str
    nonce: str = ""
    metadata: Metadata = ()

    @staticmethod
    def of(worker: Worker, scheduler_nonce: str) -> Addressee:
        """The addressee of a call that is made now, on the reactor thread, for the current HTTP request, if any."""
        request_id = REQUEST_ID.get()
        told = (
            (METADATA_KEY, request_id),
            (WORKER_ID_KEY, worker.id),
            (WORKER_NONCE_KEY, worker.nonce),
            (SCHEDULER_NONCE_KEY, scheduler_nonce),
        )
        return Addressee(worker.name, worker.nonce, tuple((key, value) for key, value in told if value))

    @property
    def request_id(self) -> str:
        """The id of the HTTP request that causes the call; ``""`` if there is none."""
        return dict(self.metadata).get(METADATA_KEY, "")

    def gave(self, answer: Iterable[Any] | None) -> bool:
        """Whether the addressee sent an answer with this metadata; true if the addressee's nonce is unknown."""
        return not self.nonce or nonce_in(answer) == self.nonce


def nonce_in(answer: Iterable[Any] | None) -> str:
    """The nonce of the process that sent an answer with this metadata; ``""`` if it names none."""
    return str(dict(answer or ()).get(WORKER_NONCE_KEY, ""))


def caller_note(identity: IOwnIds) -> Callable[[grpc.ServicerContext], None]:
    """Make the last rule of admission: it refuses nobody, and notes which process of the scheduler calls."""

    def note_thd(context: grpc.ServicerContext) -> None:
        nonce = dict(context.invocation_metadata()).get(SCHEDULER_NONCE_KEY, "")
        if nonce:
            identity.check_thd("", "", str(nonce))

    return note_thd


class AddresseeCheck(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses calls that are meant for another process, and puts this process's nonce into every answer.

    grpcio calls the interceptor on the one thread that serves all calls, before the call has a thread of its own. So it
    only compares.
    """

    def __init__(self, identity: IOwnIds) -> None:
        self._identity = identity
        self._nonce = ((WORKER_NONCE_KEY, identity.nonce),)
        #: The handler of each method that was called, which also sends the nonce. Only grpcio's serving thread uses it.
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        told = dict(handler_call_details.invocation_metadata)
        worker_id, nonce = (str(told.get(key, "")) for key in (WORKER_ID_KEY, WORKER_NONCE_KEY))
        try:
            self._identity.check_thd(worker_id, nonce, "")  # the caller is noted once it is admitted
        except Misdirected as error:
            return self._refusal(partial(status.abort, error=error))
        method = handler_call_details.method
        if method not in self._handlers:
            handler = continuation(handler_call_details)
            if handler is None:
                return self._refusal(lambda context: context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method"))
            self._handlers[method] = self._signed(handler)
        return self._handlers[method]

    def _refusal(self, refuse_thd: Callable[[grpc.ServicerContext], None]) -> grpc.RpcMethodHandler[Any, Any]:
        # A handler for a stream of requests starts at once. One for a single request would hold a thread until it
        # arrives.
        return self._signed(grpc.stream_unary_rpc_method_handler(lambda _, context: refuse_thd(context)))

    def _signed(self, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """Make a handler that does the same, and also sends the nonce of this process."""

        def signed(behaviour: Callable[..., Any]) -> Callable[..., Any]:
            def answer_thd(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
                context.set_trailing_metadata(self._nonce)
                if handler.response_streaming:
                    context.send_initial_metadata(self._nonce)
                return behaviour(request, context, *more)

            return answer_thd

        return wrapped(handler, signed)
