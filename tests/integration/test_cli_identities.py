"""``schedctl doctor --config`` with certificates that state identities, and with connections that verify them."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.internet.threads import deferToThread

from scheduler.cli.checks import installations
from scheduler.cli.checks.ports import dial
from scheduler.daemon.servers import TlsFiles
from scheduler.security.presented import serial_text
from tests.contract.test_scheduler_client import AsMembership
from tests.doubles.scheduler_client import FakeSchedulerClient
from tests.integration.identities import SCHEDULER, Lab, serial, worker_identity
from tests.integration.rpc import RpcCase


class DoctorTests(RpcCase):
    def setUp(self) -> None:
        super().setUp()
        self.lab = Lab(Path(self.mktemp()).absolute())
        self.box = self.lab.pair(worker_identity("box"))

    def found(self, pair: str, more: str = 'ca_file = "ca.pem"', name: str = "box") -> list[str]:
        """The problems and the good news about the certificates of a worker."""
        file = self.lab.folder / "worker.toml"
        file.write_text(
            f'state_dir = "s"\n[grpc_server]\naddr = "127.0.0.1:0"\nuse_tls = true\ncrt_file = "{pair}.pem"\n'
            f'key_file = "{pair}.key"\n{more}\n[worker]\nname = "{name}"\n'
        )
        return [
            f"{finding.severity.value}: {finding.sentence}"
            for finding in installations.inspect(str(file))
            if "ertificate" in finding.sentence or "[grpc_server]" in finding.sentence
        ]

    def assertFound(self, said: str, found: list[str]) -> None:
        self.assertTrue(any(said in each for each in found), found)

    def test_wrong(self) -> None:
        """A certificate of the other role, of another name, without its authority, or a revoked one is an error."""
        self.lab.pair(SCHEDULER)
        self.assertFound(
            "error: [grpc_server] crt_file is the certificate of scheduler://lab/sch", self.found("scheduler")
        )
        self.assertFound("error: The certificate is that of worker box", self.found("box", name="other"))
        self.assertFound("error: [grpc_server] ca_file is not set", self.found("box", more=""))
        (self.lab.folder / "revoked.txt").write_text(serial_text(serial(self.box)))
        revoked = 'ca_file = "ca.pem"\nrevoked = "revoked.txt"'
        self.assertFound("error: The certificate in crt_file is in the list of revoked", self.found("box", revoked))
        (self.lab.folder / "revoked.txt").write_text("nonsense")
        self.assertFound("error: [grpc_server] revoked", self.found("box", revoked))

    def test_well(self) -> None:
        """The right certificate is reported with its identity, although it is not valid for the host."""
        found = self.found("box")
        self.assertFound("ok: The certificate says that this is scheduler://lab/worker/box", found)
        self.assertEqual([each for each in found if not each.startswith("ok")], [])

    def test_foreign(self) -> None:
        """A certificate without an identity, and no peer_names, is a warning: callers are not told apart."""
        self.lab.nameless("127.0.0.1")
        said = "warning: Every certificate of ca_file may call it"
        self.assertFound(said, self.found("nameless"))
        self.assertNotIn(said, str(self.found("nameless", 'ca_file = "ca.pem"\npeer_names = ["a"]')))

    async def test_dial(self) -> None:
        """The scheduler is dialled by its address, and accepted by the name of its identity alone."""
        server = self.scheduler_server(AsMembership(FakeSchedulerClient()), self.lab.pair(SCHEDULER))

        def tried(files: TlsFiles, name: str) -> str:
            assert server.bound is not None
            return dial(server.bound, files, name)

        self.assertEqual(await deferToThread(tried, self.box, "scheduler.lab.internal"), "")
        self.assertIn("not accepted here", await deferToThread(tried, self.box, "scheduler.other.internal"))
        self.assertIn("not accepted here", await deferToThread(tried, self.box, ""))
        foreign = evolve(self.box, ca_file=Lab(Path(self.mktemp()).absolute()).certificate)
        self.assertIn("not accepted here", await deferToThread(tried, foreign, "scheduler.lab.internal"))
