"""An authority, and servers with certificates, for tests of who may call whom."""

from pathlib import Path
from typing import Any

import grpc
from attrs import evolve

from scheduler.daemon.servers import TlsFiles
from scheduler.model import Worker
from scheduler.rpc.callers import ANY_CALLER, CallerRules
from scheduler.rpc.revoked import RevokedFile
from tests.doubles.runner import FakeJobRunner
from tests.integration.identities import Lab, replace_lines
from tests.integration.rpc import ServerCase, a_worker

DENIED = grpc.StatusCode.PERMISSION_DENIED


class IdentityCase(ServerCase):
    """An authority, and servers with its certificates."""

    def setUp(self) -> None:
        super().setUp()
        self.lab = Lab(Path(self.mktemp()).absolute())
        self.runner = FakeJobRunner()

    def worker(self, files: TlsFiles, rules: CallerRules = ANY_CALLER, name: str = "b") -> Worker:
        self.server = self.worker_server(self.runner, files, rules=rules)
        return evolve(a_worker(self.server.bound), name=name)

    def connection(self, files: TlsFiles, address: object, verified: str) -> grpc.Channel:
        """A channel of gRPC's own, like that of a thief who has the files."""
        assert files.ca_file is not None
        credentials = grpc.ssl_channel_credentials(
            files.ca_file.read_bytes(), files.key_file.read_bytes(), files.crt_file.read_bytes()
        )
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", verified)]
        channel = grpc.secure_channel(str(address), credentials, options=options)
        self.addCleanup(channel.close)
        return channel

    async def denied(self, method: Any, request: object) -> str:
        """The details of a refusal."""
        self.assertIs(await self.code(method, request), DENIED)
        assert self.details is not None
        return self.details

    def revoked_file(self, *lines: str) -> RevokedFile:
        self.list = self.lab.folder / "revoked.txt"
        self.put(*lines)
        return RevokedFile(self.list)

    def put(self, *lines: str) -> None:
        """Replace the list of revoked certificates."""
        replace_lines(self.list, lines)
