"""What the worker asks of its zygote, and the zygote of a shim: to see one job through. Standard library only.

A message on a SOCK_SEQPACKET pair: the folder of a spool, and with it the pipe
that the shim closes when the spool shows what became of the start. Nothing is
sent back.
"""

from __future__ import annotations

import os
import socket

#: Longer than any path.
_LONGEST = 8192


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a line for requests."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(line: socket.socket, folder: str, answer: int) -> bool:
    """``False``: nobody is there, or takes anything."""
    try:
        socket.send_fds(line, [os.fsencode(folder)], [answer])
    except (BrokenPipeError, ConnectionResetError, TimeoutError):
        return False
    return True


def receive(line: socket.socket) -> tuple[str, int] | None:
    """The folder and the pipe of the next one; ``None``: nobody will send any more."""
    folder, descriptors, _, _ = socket.recv_fds(line, _LONGEST, 1)
    if not folder:
        return None
    (answer,) = descriptors
    os.set_inheritable(answer, False)
    return os.fsdecode(folder), answer
