"""Which process a call to a worker is meant for, and which one answers it.

Theory of operation. A worker's address is not proof of who listens there: the
machine may have another address by now, and another worker this one. So a call
says in its metadata which worker and which process of it are meant, and the
server compares that before anything else runs. The answer says, in the metadata that
ends it, which process gives it. That unmasks a program that ignores the metadata
of calls: a core worker, or a worker of an earlier version. A stream says it
before its first message, too.

gRPC can't add metadata to the beginning of a unary answer without a batch of its
own, which costs a third of a small call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, NoReturn

import grpc
from attrs import frozen

from scheduler.daemon.logs import METADATA_KEY, REQUEST_ID
from scheduler.errors import Misdirected
from scheduler.model import Worker
from scheduler.rpc import status
from scheduler.rpc.channel import Metadata
from scheduler.worker_interfaces import IIdentity

#: Of the metadata of a call: the id and the nonce of the worker that it is meant for, and the nonce of who calls.
WORKER_ID_KEY, WORKER_NONCE_KEY, SCHEDULER_NONCE_KEY = (
    "scheduler-worker-id",
    "scheduler-worker-nonce",
    "scheduler-nonce",
)


@frozen
class Addressee:
    """Whom a call is meant for: the worker's name, and the nonce of its process; ``""``: it has told none.

    ``metadata`` goes with the call.
    """

    name: str
    nonce: str = ""
    metadata: Metadata = ()

    @staticmethod
    def of(worker: Worker, scheduler_nonce: str) -> Addressee:
        """For a call that is made now, on the reactor thread: it is tied to the request that it is made for."""
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
        """Of the HTTP request the call is made for; ``""``: it is for none."""
        return dict(self.metadata).get(METADATA_KEY, "")

    def gave(self, answer: Iterable[Any] | None) -> bool:
        """Whether the process that is meant gave an answer with this metadata; of one without a nonce, any may have."""
        return not self.nonce or nonce_in(answer) == self.nonce


def nonce_in(answer: Iterable[Any] | None) -> str:
    """The nonce of the process that gave an answer with this metadata; ``""``: it does not say."""
    return str(dict(answer or ()).get(WORKER_NONCE_KEY, ""))


def _no_such_method(context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")


class AddresseeCheck(grpc.ServerInterceptor):  # type: ignore[type-arg]  # it has none while it runs
    """Refuses calls that are meant for another process, and has every answer say which process gives it.

    It runs before a call has a thread, on the thread that serves them all, so it does no more than compare.
    """

    def __init__(self, identity: IIdentity) -> None:
        self._identity = identity
        self._nonce = ((WORKER_NONCE_KEY, identity.nonce),)
        #: Of each method that was called: how it is answered. One thread uses it.
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        told = dict(handler_call_details.invocation_metadata)
        meant = (str(told.get(key, "")) for key in (WORKER_ID_KEY, WORKER_NONCE_KEY, SCHEDULER_NONCE_KEY))
        try:
            self._identity.check_thd(*meant)
        except Misdirected as error:
            return self._refusal(partial(status.abort, error=error))
        method = handler_call_details.method
        if method not in self._handlers:
            handler = continuation(handler_call_details)
            if handler is None:
                return self._refusal(_no_such_method)
            self._handlers[method] = self._signed(handler)
        return self._handlers[method]

    def _refusal(self, refuse_thd: Callable[[grpc.ServicerContext], None]) -> grpc.RpcMethodHandler[Any, Any]:
        # One that takes a stream of requests does not hold a thread until the request is there, which may be never.
        return self._signed(grpc.stream_unary_rpc_method_handler(lambda _, context: refuse_thd(context)))

    def _signed(self, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """The same, with the nonce of this process in its answers."""
        requests, responses = (
            "stream" if many else "unary" for many in (handler.request_streaming, handler.response_streaming)
        )
        behaviour = getattr(handler, f"{requests}_{responses}")

        @wraps(behaviour)
        def answer_thd(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
            context.set_trailing_metadata(self._nonce)
            if handler.response_streaming:
                context.send_initial_metadata(self._nonce)
            return behaviour(request, context, *more)

        make = getattr(grpc, f"{requests}_{responses}_rpc_method_handler")
        made: grpc.RpcMethodHandler[Any, Any] = make(
            answer_thd, handler.request_deserializer, handler.response_serializer
        )
        return made
