"""Hosts whose names are schemes of gRPC: they are hosts all the same."""

import os
import socket

from scheduler.errors import Unreachable
from scheduler.net import Address
from tests.integration.rpc import RpcCase, a_worker


class SchemeTests(RpcCase):
    """Hosts called like a scheme, which no resolver knows."""

    def setUp(self) -> None:
        super().setUp()
        os.makedirs(folder := self.mktemp())
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        self.socket = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.socket.close)
        self.socket.bind("80")
        self.socket.listen()
        self.socket.setblocking(False)

    async def test_worker(self) -> None:
        """A worker at ``unix:80`` is looked for on a host of that name, and not at a socket in the working folder."""
        for host in ("unix", "Unix"):
            await self.assertFailure(self.worker_client().query_job(a_worker(f"{host}:80"), "j"), Unreachable)
            self.assertRaises(BlockingIOError, self.socket.accept)

    async def test_scheduler(self) -> None:
        """A scheduler at ``unix:80`` likewise."""
        client = self.scheduler_client(Address("unix", 80))
        await self.assertFailure(client.deregister("w", "nonce"), Unreachable)
        self.assertRaises(BlockingIOError, self.socket.accept)
