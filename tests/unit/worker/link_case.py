"""A worker's link to a scheduler, both in memory, for the tests of its parts."""

from pathlib import Path
from random import Random

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from scheduler.messages import Heartbeat, Registration
from scheduler.model import Disk, JobSpec
from scheduler.worker.commit_count import CommitCountFile
from scheduler.worker.conversation import Conversation
from scheduler.worker.link import Link
from scheduler.worker.own_ids import IdFile, OwnIds
from scheduler.worker.troubles import Troubles
from scheduler.worker_interfaces import ICommitCount
from tests.doubles.pools import InlinePool
from tests.doubles.runner import FakeJobRunner
from tests.doubles.scheduler_client import FakeSchedulerClient

MIB = 1024 * 1024

#: What the worker's clock says, and the disk its spools are on.
WALL = 1_700_000_000.5
DISK = Disk(1000, 900, 100, 90)


class Latest(Random):
    """Draws the end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return b


class LinkCase(SynchronousTestCase):
    """A worker with jobs in memory and a scheduler in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.jobs = FakeJobRunner()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.id_file = self.folder / "worker_id"
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)
        self.identity = OwnIds(lambda notify: notify(), "secret", "nonce")
        self.use(FakeSchedulerClient())

    def note(self, event: dict) -> None:
        if isinstance(event.get("log_source"), Link | Conversation | Troubles | IdFile):
            self.logged.append(event["log_format"].format(**event))

    def use(
        self,
        client: FakeSchedulerClient,
        random: Random | None = None,
        jobs: FakeJobRunner | None = None,
        commit_count: ICommitCount | None = None,
    ) -> None:
        """Have that scheduler, and a new process on this machine."""
        self.client = client
        self.jobs = jobs or FakeJobRunner()
        random = random or Latest()
        conversation = Conversation(
            self.clock,
            client,
            self.jobs,
            lambda: self.facts,
            IdFile(self.id_file),
            CommitCountFile(InlinePool(), self.mktemp()) if commit_count is None else commit_count,
            self.identity,
            random,
            lambda: WALL,
            lambda: self.disk,
        )
        self.link = Link(self.clock, client, self.jobs, self.identity, conversation, random)

    disk: Disk | None = DISK
    facts = Registration("127.0.0.1:30000", name="box", labels={"a": "b"}, slots=4, boot_id="boot", version="1")

    def start(self, *job_ids: str, spec: JobSpec | None = None) -> None:
        """Run these jobs; the scheduler knows them."""
        for job_id in job_ids:
            self.successResultOf(self.jobs.start(job_id, spec or JobSpec(command="true"), 1.0))
            self.client.knows.add(job_id)

    def begin(self, *job_ids: str) -> None:
        """Start the link while these jobs run, and forget what was said so far."""
        self.start(*job_ids)
        self.link.startService()
        self.client.calls.clear()

    def unacknowledged(self) -> list[str]:
        return [report.status.job_id for report in self.jobs.unacknowledged()]

    @staticmethod
    def ended(heartbeat: Heartbeat) -> list[str]:
        return [report.status.job_id for report in heartbeat.ended]

    @staticmethod
    def described(heartbeat: Heartbeat) -> list[str]:
        return [report.status.job_id for report in heartbeat.described]
