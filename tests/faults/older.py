"""A proxy between a worker and its scheduler that makes each look like an earlier version to the other.

Run as ``python -m tests.faults.older SCHEDULER``. It prints the address at which the worker finds the scheduler
``SCHEDULER``. It learns the worker's address from the registration, and replaces it by one of its own. Messages pass
unchanged, except for the fields that were added when workers began to name their process: folder ids, nonces, commit
counts, and the requests that depend on them, in messages and in metadata. So this tests the former wire format; the
code on both sides is today's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from scheduler.pb import scheduler_pb2 as pb

#: Fields that an earlier version lacks, by message.
ADDED = {
    pb.RegisterReq: ("folderID", "nonce", "commitCount"),
    pb.RegisterRes: ("commitCount",),
    pb.DeregisterReq: ("nonce",),
    pb.HeartbeatReq: ("nonce", "commitCount"),
    pb.HeartbeatRes: ("registerAgain", "commitCount", "reportAll"),
}

#: The prefix of all metadata of ours that was added with them.
_METADATA = "scheduler-"

#: Calls at once in each direction; each stream of output is one.
_CALLS = 100

_METHODS = {
    "/jobscheduler.Scheduler/RegisterWorker": (pb.RegisterReq, pb.RegisterRes),
    "/jobscheduler.Scheduler/DeregisterWorker": (pb.DeregisterReq, pb.DeregisterRes),
    "/jobscheduler.Scheduler/Heartbeat": (pb.HeartbeatReq, pb.HeartbeatRes),
}

Edit = Callable[[str, bytes], bytes]


def stripped(message: Any) -> Any:
    """The message without the added fields."""
    for name in ADDED.get(type(message), ()):
        message.ClearField(name)
    return message


class Forward(grpc.GenericRpcHandler):
    """Forwards each call to ``channel()``, with edited messages."""

    def __init__(self, channel: Callable[[], grpc.Channel], ask: Edit, answer: Edit) -> None:
        self._channel = channel
        self._ask = ask
        self._answer = answer

    def service(self, details: Any) -> Any:
        method = details.method
        metadata = [(key, value) for key, value in details.invocation_metadata if _passes(key)]

        def call(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            asked = (self._ask(method, request) for request in requests)
            made = self._channel().stream_stream(method)(asked, timeout=context.time_remaining(), metadata=metadata)
            context.add_callback(made.cancel)
            try:
                for answer in made:
                    yield self._answer(method, answer)
            except grpc.RpcError as error:
                context.set_trailing_metadata([pair for pair in error.trailing_metadata() or () if _passes(pair[0])])
                context.abort(error.code(), error.details())

        return grpc.stream_stream_rpc_method_handler(call)


def _passes(key: str) -> bool:
    return not key.startswith((_METADATA, "grpc-", ":")) and key not in ("user-agent", "te", "content-type")


def _as_it_is(_: str, message: bytes) -> bytes:
    return message


def main(scheduler: str) -> None:
    """Serve until the process is killed."""
    towards: list[grpc.Channel] = []
    calls, reports = (grpc.server(ThreadPoolExecutor(_CALLS)) for _ in range(2))
    mine = f"127.0.0.1:{calls.add_insecure_port('127.0.0.1:0')}"

    def ask(method: str, data: bytes) -> bytes:
        if method not in _METHODS:
            return data
        message = stripped(_METHODS[method][0].FromString(data))
        if isinstance(message, pb.RegisterReq):
            towards[:] = [grpc.insecure_channel(message.address)]
            message.address = mine
        asked: bytes = message.SerializeToString()
        return asked

    def answer(method: str, data: bytes) -> bytes:
        if method not in _METHODS:
            return data
        answered: bytes = stripped(_METHODS[method][1].FromString(data)).SerializeToString()
        return answered

    upstream = grpc.insecure_channel(scheduler, [("grpc.max_reconnect_backoff_ms", 1000)])
    reports.add_generic_rpc_handlers((Forward(lambda: upstream, ask, answer),))
    calls.add_generic_rpc_handlers((Forward(lambda: towards[-1], _as_it_is, _as_it_is),))
    port = reports.add_insecure_port("127.0.0.1:0")
    for server in (calls, reports):
        server.start()
    sys.stdout.write(f"127.0.0.1:{port}\n")
    sys.stdout.flush()
    reports.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1])
