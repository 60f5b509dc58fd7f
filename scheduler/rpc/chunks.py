"""Output of jobs in messages, and as values of the model: both ways, checked."""

from __future__ import annotations

from scheduler.errors import Invalid
from scheduler.messages import Chunk
from scheduler.model import Stream
from scheduler.pb import worker_pb2
from scheduler.texts import bounded_text

_STREAMS = {Stream.STDOUT: worker_pb2.STDOUT, Stream.STDERR: worker_pb2.STDERR}
_STREAM_OF = {int(number): stream for stream, number in _STREAMS.items()}


def stream_to_pb(stream: Stream) -> worker_pb2.Stream:
    """Which of the two."""
    return _STREAMS[stream]


def stream_from_pb(number: int) -> Stream:
    """``Invalid`` for a number that is neither."""
    try:
        return _STREAM_OF[number]
    except KeyError:
        raise Invalid("stream", f"{number} is neither 0 (stdout) nor 1 (stderr)") from None


def chunk_from_stream(message: worker_pb2.StreamJobRes) -> Chunk:
    """How long the stream is now, a message of it does not say."""
    return Chunk(message.output, message.offset, message.end, cut=bounded_text(message.cut))


def chunk_from_read(message: worker_pb2.ReadOutputRes, offset: int, most: int) -> Chunk:
    """What there was when it was read; ``Invalid`` if that is not what was asked for."""
    chunk = Chunk(message.output, message.offset, message.end, message.size, bounded_text(message.cut))
    if chunk.offset != offset or len(chunk.data) > most or chunk.next_offset > chunk.size:
        raise Invalid("output", f"{len(chunk.data)} bytes from {chunk.offset} of {chunk.size} were not asked for")
    return chunk
