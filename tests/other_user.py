"""Acts as another user of this machine, which only root can.

The child processes are forked and never execute another program: an interpreter below root's home is unreachable for
other users. So they can't import anything either.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - a child would import it to look up an address
import os
import signal
import socket
import threading
from collections.abc import Callable

#: The user ``nobody``, as whom the tests act.
NOBODY = 65534

#: Why a test that acts as another user is skipped; ``None`` if it is not.
SKIP = None if os.geteuid() == 0 else "only root can act as another user"


def _fork(uid: int, act: Callable[[], object]) -> int:
    """Run ``act`` in a child process of that user. Returns its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        act()
        code = 0
    finally:
        os._exit(code)


def as_user(uid: int, act: Callable[[], bytes]) -> bytes:
    """Run ``act`` as that user, and return its result. Blocks until it has ended. Raises ``OSError`` if it failed."""
    reading, writing = os.pipe()
    pid = _fork(uid, lambda: os.write(writing, act()))
    os.close(writing)
    with os.fdopen(reading, "rb") as result:
        said = result.read()
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise OSError("the act of the other user failed")
    return said


class Relay:
    """A process of another user, through which all bytes of a TCP connection go, in both directions."""

    def __init__(self, uid: int, port: int) -> None:
        """Relay to ``port`` of 127.0.0.1."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
            self._pid = _fork(uid, lambda: _relay(listening, port))

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _relay(listening: socket.socket, port: int) -> None:
    while True:
        near, _ = listening.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    while data := one.recv(65536):
        other.sendall(data)
    other.shutdown(socket.SHUT_WR)
