"""A worker with jobs in memory, in a process of its own: prints its address; one job, ``j``, runs."""

import sys

from twisted.internet import reactor

from scheduler.model import JobSpec
from scheduler.net import Address
from scheduler.rpc.worker_server import worker_server
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import an_identity

if __name__ == "__main__":
    runner = FakeJobRunner()
    runner.start("j", JobSpec(command="true"), None)
    server = worker_server(reactor, Address("127.0.0.1", 0), None, runner, an_identity())
    server.startService()
    sys.stdout.write(f"{server.bound}\n")
    sys.stdout.flush()
    reactor.run()
