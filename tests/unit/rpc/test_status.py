"""Errors across the wire: each arrives as itself, and nothing else is accepted."""

import json
from collections.abc import Iterator

from grpc import StatusCode
from twisted.trial.unittest import SynchronousTestCase

from scheduler import errors
from scheduler.errors import SchedulerError
from scheduler.rpc import status
from scheduler.texts import TEXT_MAX_BYTES

#: An example of each error.
EXAMPLES = (
    errors.Invalid("address", "must be host:port"),
    errors.NotFound("job", "j-1"),
    errors.BeyondReach("job", "j-1"),
    errors.Conflict("another worker has that name"),
    errors.Draining("w"),
    errors.NoMatch("no worker matches"),
    errors.NameTaken("another worker has that name"),
    errors.WorkerOnline("w"),
    errors.JobNotRunning("j-1", "queued"),
    errors.JobNotEnded("j-1", "running"),
    errors.JobRemoved("j-1"),
    errors.Unauthenticated("no token"),
    errors.ScopeNeeded("token:ci", "run"),
    errors.Refused("that address is not allowed"),
    errors.Unsupported("w", "StreamJob"),
    errors.WorkerFault("w", "its disk is on fire"),
    errors.AnswerUnreadable("w", "Received message larger than max"),
    errors.KeyReused("k"),
    errors.KeyInUse("k"),
    errors.KeyUnsettled("k"),
    errors.OutputPruned("j-1"),
    errors.OutputCut("j-1", "stdout: No space left on device"),
    errors.OutputGone("j-1", "the job is lost (no record)"),
    errors.LeftRunning("j-1", (12, 13), "2 processes could not be ended: 12, 13"),
    errors.QueueFull(9),
    errors.TooManyRequests("too many", 7),
    errors.OffsetBeyondEnd(9, 7),
    errors.DeadlineExceeded("QueryJob", 10),
    errors.StartUnanswered("w", "j-1"),
    errors.Unavailable("not now", 7),
    errors.Unreachable("host:1", sent=True, kind="scheduler", reason="connection refused"),
    errors.Misdirected("host-1"),
    errors.NotAWorker("host-1", "StartJob"),
    errors.NoFreeSlot("all slots are taken", 3),
    errors.Busy("streams", 64),
    errors.StoreFailed("disk full", 5),
    errors.ShuttingDown(),
)


class Aborted(Exception):
    pass


class Context:
    """The part of a servicer's context that an error needs."""

    def trailing_metadata(self) -> None:
        return None

    def set_trailing_metadata(self, metadata: tuple) -> None:
        self.metadata = metadata

    def abort(self, code: StatusCode, details: str) -> None:
        self.code = code
        self.details = details
        raise Aborted


class Failure:
    """The part of an RpcError that is read."""

    def __init__(self, metadata: tuple | None) -> None:
        self._metadata = metadata

    def trailing_metadata(self) -> tuple | None:
        return self._metadata


def all_errors(root: type[SchedulerError] = SchedulerError) -> Iterator[type[SchedulerError]]:
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__:
            yield error
            yield from all_errors(error)


class StatusTests(SynchronousTestCase):
    def aborted(self, error: SchedulerError) -> Context:
        context = Context()
        self.assertRaises(Aborted, status.abort, context, error)
        return context

    def test_complete(self) -> None:
        """Every error has a row and an example here."""
        self.assertEqual(set(status.TABLE), set(all_errors()))
        self.assertEqual(set(status.TABLE), set(map(type, EXAMPLES)))

    def test_round_trip(self) -> None:
        """Each error arrives with its type, data and message."""
        for error in EXAMPLES:
            context = self.aborted(error)
            self.assertEqual(context.details, str(error))
            self.assertIs(context.code, status.TABLE[type(error)].code)
            back = status.error_from_status(Failure(context.metadata))
            self.assertIs(type(back), type(error))
            self.assertEqual(str(back), str(error))
            self.assertEqual(vars(back), vars(error))

    def test_codes(self) -> None:
        """Codes suit programs that know only gRPC: never OK, and UNKNOWN only for an unknown result."""
        codes = {row.code for row in status.TABLE.values()}
        self.assertNotIn(StatusCode.OK, codes)
        self.assertEqual(
            [error for error, row in status.TABLE.items() if row.code is StatusCode.UNKNOWN], [errors.StartUnanswered]
        )

    def test_long_texts(self) -> None:
        """Long texts are cut below gRPC's limit, at whole characters."""
        for text in ("x" * 100_000, "\U0001f600" * 100_000, '"\\\\' * 10_000, "\udcff" * 10_000):
            context = self.aborted(errors.Invalid(text, text))
            ((_, value),) = context.metadata
            on_the_wire = len(value) * 4 / 3 + sum(1 if 32 <= byte < 127 else 3 for byte in context.details.encode())
            self.assertLess(on_the_wire, 7000)
            back = status.error_from_status(Failure(context.metadata))
            self.assertIs(type(back), errors.Invalid)
            self.assertNotIn("\ufffd", back.field)

    def test_texts_that_can_not_be_shown(self) -> None:
        """Any text of the other side is printable and bounded when it is read."""
        told = {"error": "NotFound", "kind": "job", "name": "\x1b[2J\n" + "x" * 100_000}
        metadata = ((status.METADATA_KEY, json.dumps(told).encode()),)
        back = status.error_from_status(Failure(metadata))
        self.assertEqual(back.name, "\ufffd[2J\ufffd" + "x" * (TEXT_MAX_BYTES - 9))

    def test_nothing_told(self) -> None:
        """A status made by gRPC itself contains no error of ours."""
        self.assertIsNone(status.error_from_status(Failure(None)))
        self.assertIsNone(status.error_from_status(Failure((("other", "x"), ("other-bin", b"{}")))))

    def test_hostile(self) -> None:
        """Invalid metadata is ignored: a wrong name, number or type of arguments."""
        for told in (
            b"",
            b"\xff",
            b"[]",
            b"null",
            b"{}",
            b"[" * 100_000,
            {"error": "SchedulerError"},
            {"error": ["NotFound"]},
            {"error": "NotFound", "kind": "job"},
            {"error": "NotFound", "kind": "job", "name": None},
            {"error": "OffsetBeyondEnd", "offset": "9", "size": 7},
            {"error": "OffsetBeyondEnd", "offset": True, "size": 7},
            {"error": "Unavailable", "message": "x", "retry_after": "x\r\nSet-Cookie: y"},
            {"error": "Unreachable", "name": "w", "kind": "worker", "sent": 0, "reason": ""},
        ):
            value = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.assertIsNone(status.error_from_status(Failure(((status.METADATA_KEY, value),))), told)
