"""Certificates with an identity at the start: refusals of those that do not fit the process, and its log."""

from datetime import UTC, datetime

from twisted.logger import globalLogPublisher

from scheduler.daemon.lifetime import lifetime
from scheduler.daemon.startup import SchedulerOptions, WorkerOptions
from scheduler.security.authority import issue, make_authority, open_authority, write_pair
from scheduler.security.identities import Identity, Role
from tests.unit.start_case import StartCase

SCHEDULER, BOX = Identity("lab", Role.SCHEDULER), Identity("lab", Role.WORKER, "box")


class Worker(WorkerOptions):
    """A worker whose state folder is of no interest."""

    open_folder = staticmethod(lambda *_: None)
    check_worker = staticmethod(lambda _: None)


class IdentityTests(StartCase):
    def setUp(self) -> None:
        super().setUp()
        make_authority(self.folder, "lab", datetime.now(UTC))
        for name, identity in (("scheduler", SCHEDULER), ("box", BOX)):
            write_pair(self.folder, name, *issue(open_authority(self.folder), identity, (), datetime.now(UTC)))

    def configure(self, pair: str, more: str = 'ca_file = "ca.pem"', worker: str = "") -> None:
        self.write(
            f'[grpc_server]\naddr = "127.0.0.1:0"\nuse_tls = true\ncrt_file = "{pair}.pem"\nkey_file = "{pair}.key"\n'
            f"{more}\n{worker}"
        )

    def test_role(self) -> None:
        """A process does not start with the certificate of the other role."""
        http = '[http_server]\naddr = "127.0.0.1:0"'
        self.configure("box", worker=http)
        self.assertIn("is the certificate of scheduler://lab/worker/box", self.refusal(SchedulerOptions()))
        self.configure("scheduler", worker='[worker]\nname = "box"')
        self.assertIn("and a worker needs one of a worker", self.refusal(Worker()))
        self.configure("scheduler", worker=http)
        options = SchedulerOptions()
        self.parse(options)
        self.assertEqual(options.identity, SCHEDULER)

    def test_name(self) -> None:
        """A worker has the name in its certificate."""
        self.configure("box", worker='[worker]\nname = "other"')
        self.assertEqual(
            self.refusal(Worker()),
            "[worker] name = \"other\": must be that in the certificate of [grpc_server] crt_file: 'box'",
        )
        self.configure("box", worker='[worker]\nname = "box"')
        options = Worker()
        self.parse(options)
        self.assertEqual(options.identity, BOX)

    def test_contradictions(self) -> None:
        """An identity needs its authority, and leaves nothing to peer_names."""
        worker = '[worker]\nname = "box"'
        self.configure("box", "", worker)
        self.assertIn("[grpc_server] ca_file: is not set", self.refusal(Worker()))
        self.configure("box", 'ca_file = "ca.pem"\npeer_names = ["a"]', worker)
        self.assertIn("[grpc_server] peer_names", self.refusal(Worker()))

    def test_revoked(self) -> None:
        """A malformed list of revoked certificates is refused, with its first wrong line."""
        (self.folder / "revoked.txt").write_text("12ab\nnonsense\n")
        self.configure("box", 'ca_file = "ca.pem"\nrevoked = "revoked.txt"', '[worker]\nname = "box"')
        self.assertIn("line 2, 'nonsense', is no serial", self.refusal(Worker()))

    def test_warning(self) -> None:
        """Each start with certificates that do not say who may call is logged as a warning."""
        logged: list[str] = []

        def note(event: dict) -> None:
            if event.get("log_namespace") == "scheduler.daemon.lifetime":
                logged.append(f"{event['log_level'].name}: {event['log_format'].format(**event)}")

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        self.configure("box", worker='[worker]\nname = "box"')
        options = Worker()
        self.parse(options)
        for identity, warnings in ((BOX, 0), (None, 1)):
            logged.clear()
            lifetime("worker", options.config, identity).startService()
            self.assertEqual(sum(line.startswith("warn: ") for line in logged), warnings, logged)
        self.assertIn("every certificate of ca_file may call this worker under any name", logged[-1])
