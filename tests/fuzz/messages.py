"""gRPC messages with hostile values in any field, and calls with hostile metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from attrs import evolve, frozen
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from scheduler.pb import scheduler_pb2, worker_pb2
from tests.fuzz import values

#: The methods of each service: the path, and the class of the request.
METHODS = {
    service.name: [
        (f"/{service.full_name}/{method.name}", GetMessageClass(method.input_type)) for method in service.methods
    ]
    for module in (scheduler_pb2, worker_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
}
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), 253402300800.0, 0.1)


@frozen
class _Maker:
    """Makes the values of a message. A share ``odd`` of them is hostile; ``known`` are right values of some fields."""

    rng: Random
    odd: float
    known: Mapping[str, Sequence[str]]

    def message(self, kind: type[Message], focus: bool = False) -> Message:
        """Make a message; ``focus``: most values of one field are hostile, and no others."""
        made, fields = kind(), kind.DESCRIPTOR.fields
        focused = self.rng.choice(fields) if focus else None
        for field in fields:
            if field is focused:
                evolve(self, odd=0.7)._set(made, field)
            elif self.rng.random() < (0.95 if field.name in self.known else 0.6):
                self._set(made, field)
        return made

    def _set(self, made: Message, field: FieldDescriptor) -> None:
        name, rng, kind = field.name, self.rng, field.message_type
        if not field.is_repeated:
            if kind is None:
                setattr(made, name, self._value(field))
            else:
                getattr(made, name).CopyFrom(self.message(GetMessageClass(kind)))
            return
        many = rng.choice((0, 1, 2, 3, 70, 300)) if rng.random() < self.odd / 2 else rng.randrange(3)
        of = getattr(made, name)
        if kind is None:
            of.extend(self._value(field) for _ in range(many))
        elif kind.GetOptions().map_entry:
            of.update({self._key(name): self._text() for _ in range(many)})
        else:
            of.extend(self.message(GetMessageClass(kind)) for _ in range(min(many, 20)))

    def _key(self, name: str) -> str:
        known = name == "env" and self.rng.random() < self.odd / 2
        return self.rng.choice(values.ENV_NAMES) if known else self._text()

    def _text(self) -> str:
        return values.encodable(self.rng)[:5000] if self._is_odd() else self.rng.choice(("a", "b", "c"))

    def _is_odd(self) -> bool:
        return self.rng.random() < self.odd

    def _value(self, field: FieldDescriptor) -> Any:
        rng, odd = self.rng, self._is_odd()
        if field.type in _INTEGERS:
            low, high = _INTEGERS[field.type]
            return rng.choice((10, 64, 65, low, high, rng.randrange(low, high)) if odd else (0, 1, 2))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return rng.choice(_FLOATS if odd else (1.0, 1_700_000_000.0))
        if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.choice((b"", b"#!", b"\0" * 100, b"\xff", b"a" * 70_000) if odd else (b"#!/bin/sh\ntrue\n",))
        if field.name == "command":
            return rng.choice(values.COMMANDS)
        if field.name == "address":
            return rng.choice(values.HOSTS if odd else self.known.get("address", ("127.0.0.1:1",)))
        if field.name == "jobID" and rng.random() < 0.5:
            return f"fuzz-{rng.randrange(10**6)}"
        return values.encodable(rng) if odd else rng.choice(self.known.get(field.name, ("a", "b", "")))


def message(rng: Random, kind: type[Message], known: Mapping[str, Sequence[str]]) -> Message:
    """A message of that class; ``known`` are right values of some fields."""
    focus = rng.random() < 0.6
    return _Maker(rng, 0.0 if focus else rng.choice((0.0, 0.05, 0.1, 0.3, 1.0)), known).message(kind, focus)


def metadata(rng: Random, known: Mapping[str, Sequence[str]]) -> list[tuple[str, str | bytes]]:
    """The metadata of a call."""
    found: list[tuple[str, str | bytes]] = []
    for name in ("scheduler-worker-id", "scheduler-worker-nonce", "scheduler-nonce", "x-request-id", "authorization"):
        if rng.random() < 0.1:
            right = known.get("workerID", ()) if name.endswith("-id") else ()
            text = rng.choice((*right, "", "a", "a" * 3000, "{0}", "Bearer x", "sched_a_b_c", " a "))
            found.append((name, text))
    if rng.random() < 0.1:
        found += [(f"x-{number}", "a" * 50) for number in range(rng.choice((1, 20, 100, 400)))]
    if rng.random() < 0.1:
        found.append(("scheduler-error-bin", rng.choice((b"", b"\xff\0", b'{"error": "NotFound"}', b"[" * 5000))))
    return found
