"""Compression is off: a message that is small on the wire must not be large in memory."""

from __future__ import annotations

import grpc

#: Options of every server and channel: no message is compressed, and a compressed one is refused (UNIMPLEMENTED).
NO_COMPRESSION = (
    ("grpc.default_compression_algorithm", grpc.Compression.NoCompression.value),
    # a set of bits by algorithm
    ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression.value),
)
