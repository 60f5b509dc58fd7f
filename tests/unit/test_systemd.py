"""Telling systemd, which listens at a datagram socket; here that is the test."""

import os
import socket
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from scheduler.daemon.systemd import READY, STOPPING, notify


class NotifyTests(SynchronousTestCase):
    """What arrives, and what happens when nobody listens."""

    def listen(self, address: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(address)
        listener.settimeout(10)
        return listener

    def test_file(self) -> None:
        """What is said arrives at a socket with a path, each time as one message."""
        with tempfile.TemporaryDirectory() as folder:  # the path of a socket must be short
            listener = self.listen(f"{folder}/notify")
            for state in (READY, STOPPING):
                notify(state, {"NOTIFY_SOCKET": f"{folder}/notify"})
            self.assertEqual([listener.recv(100), listener.recv(100)], [b"READY=1", b"STOPPING=1"])

    def test_abstract(self) -> None:
        """A socket that has no file, written with an @ in front, is reached."""
        name = f"scheduler-test-{os.getpid()}"
        listener = self.listen(f"\0{name}")
        notify(READY, {"NOTIFY_SOCKET": f"@{name}"})
        self.assertEqual(listener.recv(100), b"READY=1")

    def test_not_asked(self) -> None:
        """Where systemd did not start the process, nothing happens."""
        notify(READY, {})
        notify(READY, {"NOTIFY_SOCKET": ""})

    def test_nobody_listens(self) -> None:
        """A socket that is not there stops nobody from starting."""
        notify(READY, {"NOTIFY_SOCKET": self.mktemp()})
