"""Notifications to systemd, which listens at a datagram socket. Here the test listens."""

import os
import socket
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.systemd import READY, STOPPING, notify


class NotifyTests(SynchronousTestCase):
    """Sent notifications, with and without a listener."""

    def listen(self, address: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(address)
        listener.settimeout(10)
        return listener

    def test_file(self) -> None:
        """A notification arrives at a socket with a path, as one message."""
        with tempfile.TemporaryDirectory() as folder:  # the path of a socket must be short
            listener = self.listen(f"{folder}/notify")
            for state in (READY, STOPPING):
                notify(state, {"NOTIFY_SOCKET": f"{folder}/notify"})
            self.assertEqual([listener.recv(100), listener.recv(100)], [b"READY=1", b"STOPPING=1"])

    def test_abstract(self) -> None:
        """An abstract socket, written with a leading @, is reached."""
        name = f"scheduler-test-{os.getpid()}"
        listener = self.listen(f"\0{name}")
        notify(READY, {"NOTIFY_SOCKET": f"@{name}"})
        self.assertEqual(listener.recv(100), b"READY=1")

    def test_not_asked(self) -> None:
        """Without systemd nothing happens."""
        notify(READY, {})
        notify(READY, {"NOTIFY_SOCKET": ""})

    def test_nobody_listens(self) -> None:
        """A missing socket does not prevent the start."""
        notify(READY, {"NOTIFY_SOCKET": self.mktemp()})
