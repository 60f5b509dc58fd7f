"""What the worker asks of its zygote, and the zygote of a shim: to see one job through. Standard library only.

A message on a SOCK_SEQPACKET pair: the folder of a spool, and with it the shim's
end of a line of its own to the worker. On that the shim is told, once the spool is
durable, that it may begin; it closes it when the spool shows what became of the
start. Where nothing can be begun for want of what the machine has, zygote or shim
say so on that line first, in a sentence.
"""

from __future__ import annotations

import contextlib
import os
import socket

#: Longer than any path.
_MESSAGE_MAX_BYTES = 8192

_BEGIN = b"\n"


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a line for requests."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(line: socket.socket, folder: str, start: socket.socket) -> bool:
    """``False``: nobody is there, or takes anything."""
    try:
        socket.send_fds(line, [os.fsencode(folder)], [start.fileno()])
    except (BrokenPipeError, ConnectionResetError, TimeoutError):
        return False
    return True


def receive(line: socket.socket) -> tuple[str, socket.socket] | None:
    """The folder of the next one, and the line of its start; ``None``: nobody will send any more."""
    folder, descriptors, _, _ = socket.recv_fds(line, _MESSAGE_MAX_BYTES, 1)
    if not folder:
        return None
    (descriptor,) = descriptors
    os.set_inheritable(descriptor, False)
    return os.fsdecode(folder), socket.socket(fileno=descriptor)


def let_begin(start: socket.socket) -> None:
    """Tell the shim at the other end; one that is gone is seen to be."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        start.send(_BEGIN)


def refuse(start: socket.socket, why: str) -> None:
    """Tell the worker that this start begins nothing."""
    with contextlib.suppress(OSError):  # nobody is there any more
        start.send(os.fsencode(why))


def refusal(start: socket.socket) -> str:
    """What was said by ``refuse``, ``""`` if the other end was just closed."""
    try:
        said = start.recv(_MESSAGE_MAX_BYTES)
    except ConnectionResetError:  # the other end did not read what it was sent; what it said comes after that
        said = start.recv(_MESSAGE_MAX_BYTES)
    return os.fsdecode(said)


def may_begin(start: socket.socket) -> bool:
    """Whether the worker says so: wait until it does, or is gone, or lets go of the start."""
    return start.recv(len(_BEGIN)) == _BEGIN
