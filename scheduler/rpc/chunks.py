"""Job output: conversion between gRPC messages and values of the model, with checks."""

from __future__ import annotations

from scheduler.errors import Invalid
from scheduler.messages import Chunk
from scheduler.model import Stream
from scheduler.pb import worker_pb2
from scheduler.texts import bounded_text

_STREAMS = {Stream.STDOUT: worker_pb2.STDOUT, Stream.STDERR: worker_pb2.STDERR}
_STREAM_OF = {int(number): stream for stream, number in _STREAMS.items()}


def stream_to_pb(stream: Stream) -> worker_pb2.Stream:
    """The number of a stream in messages."""
    return _STREAMS[stream]


def stream_from_pb(number: int) -> Stream:
    """The stream with that number; ``Invalid`` if there is none."""
    try:
        return _STREAM_OF[number]
    except KeyError:
        raise Invalid("stream", f"{number} is neither 0 (stdout) nor 1 (stderr)") from None


def chunk_from_stream(message: worker_pb2.StreamJobRes) -> Chunk:
    """The chunk in a message of ``StreamJob``. Its ``size`` is 0, because the message has no field for it."""
    return Chunk(message.output, message.offset, message.end, cut=bounded_text(message.cut))


def chunk_from_read(message: worker_pb2.ReadOutputRes, offset: int, most: int) -> Chunk:
    """The chunk in an answer of ``ReadOutput``; ``Invalid`` if it does not match the request."""
    chunk = Chunk(message.output, message.offset, message.end, message.size, bounded_text(message.cut))
    if chunk.offset != offset or len(chunk.data) > most or chunk.next_offset > chunk.size:
        raise Invalid("output", f"{len(chunk.data)} bytes from {chunk.offset} of {chunk.size} were not asked for")
    return chunk
