"""Messages of one start: worker to zygote, zygote to shim, and the line between worker and shim. Standard library only.

A request is a message on a SOCK_SEQPACKET pair: the folder of a spool, and with it the shim's end of a line of its own
to the worker. Once the spool is durable, the worker tells the shim on that line that it may begin. The shim closes the
line when the spool shows the outcome of the start. If the machine lacks a resource to begin the job, zygote or shim
first send the reason on that line, as a sentence.
"""

from __future__ import annotations

import contextlib
import os
import socket

#: Longer than any path.
_MESSAGE_MAX_BYTES = 8192

_BEGIN = b"\n"


def pair() -> tuple[socket.socket, socket.socket]:
    """Make both ends of a line."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(line: socket.socket, folder: str, start: socket.socket) -> bool:
    """Send a request. ``False``: the other end is closed, or does not read."""
    try:
        socket.send_fds(line, [os.fsencode(folder)], [start.fileno()])
    except (BrokenPipeError, ConnectionResetError, TimeoutError):
        return False
    return True


def receive(line: socket.socket) -> tuple[str, socket.socket] | None:
    """Receive a request: the folder, and the line of the start. ``None``: no request will come any more."""
    folder, descriptors, _, _ = socket.recv_fds(line, _MESSAGE_MAX_BYTES, 1)
    if not folder:
        return None
    (descriptor,) = descriptors
    os.set_inheritable(descriptor, False)
    return os.fsdecode(folder), socket.socket(fileno=descriptor)


def let_begin(start: socket.socket) -> None:
    """Tell the shim at the other end that it may begin. If it is gone, the closed line shows that later."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        start.send(_BEGIN)


def refuse(start: socket.socket, why: str) -> None:
    """Tell the worker why this start begins nothing."""
    with contextlib.suppress(OSError):  # the worker is gone
        start.send(os.fsencode(why))


def refusal(start: socket.socket) -> str:
    """Read the reason that ``refuse`` sent; ``""`` if the other end was closed without one."""
    try:
        said = start.recv(_MESSAGE_MAX_BYTES)
    except ConnectionResetError:  # the other end did not read all that it was sent; its reason comes after that
        said = start.recv(_MESSAGE_MAX_BYTES)
    return os.fsdecode(said)


def may_begin(start: socket.socket) -> bool:
    """Wait until the worker allows the start, ends, or gives the start up; answers whether it allows it."""
    return start.recv(len(_BEGIN)) == _BEGIN
