"""A worker of its own process, to be killed: ``python -m tests.integration.worker_process STATE_DIR``.

Reads a JSON list on each line of its input, a job's id or "" and a command line,
starts it as a job and prints the job's id. What ends is acknowledged.
"""

import json
import os
import sys

from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from tests.integration.running import Running


class Commands(LineReceiver):
    delimiter = b"\n"

    def __init__(self, worker: Running) -> None:
        self.worker = worker

    def lineReceived(self, line: bytes) -> None:
        job_id, *command = json.loads(line)
        Deferred.fromCoroutine(self.worker.start(*command, job_id=job_id)).addCallbacks(
            lambda job_id: self.sendLine(job_id.encode()), die
        )


def die(failure: Failure) -> None:
    failure.printTraceback()
    os._exit(1)


async def begin() -> None:
    worker = Running(sys.argv[1])
    await worker.begin()
    jobs = worker.jobs
    jobs.on_end(lambda: jobs.acknowledge([report.status.job_id for report in jobs.unacknowledged()]))
    stdio.StandardIO(Commands(worker))


if __name__ == "__main__":
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(begin()).addErrback(die))
    reactor.run()
