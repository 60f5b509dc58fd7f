"""Mutations of the code for starts, the queue, stops and output."""

from __future__ import annotations

from tests.simulation.mutations.mutation import Mutation

JOBS: tuple[Mutation, ...] = (
    # -- starts
    Mutation(
        "ask without a seal",
        "To ask about an unanswered start seals its id, so that a start that is still on its way runs nothing.",
        "cluster/workers/reconcile.py",
        ", seal=worker.seals",
        ", seal=False",
        "network",
        ("checker P4", "P4 true", "the code it had"),
    ),
    Mutation(
        "stop without a seal",
        "A stop of a job whose start was not answered seals its id first: the start may be behind the stop.",
        "cluster/jobs/stops.py",
        "        if lifecycle.unconfirmed(job) and worker.seals:\n",
        "        if False:\n",
        "crashes",
        ("lost only if destroyed",),
    ),
    Mutation(
        "send a start again under a new id",
        "A start is sent again under the id of the job: its worker runs that once.",
        "cluster/jobs/starts.py",
        """\
            status = await self._client.start_job(worker, job)
        except Conflict:""",
        """\
            job = evolve(job, id=f"{job.id}-{int(1000 * self._clock.seconds())}")
            status = await self._client.start_job(worker, job)
        except Conflict:""",
        "network",
        ("one job for each key", "P2 one run"),
    ),
    Mutation(
        "take an unanswered start for not sent",
        "A start that may have arrived is not made anywhere else, nor refused.",
        "cluster/jobs/outcomes.py",
        "        case DeadlineExceeded() | Unreachable(sent=True):\n",
        """\
        case DeadlineExceeded():
            return Outcome(Fate.NOT_SENT, elsewhere=True)
        case Unreachable(sent=True):
""",
        "network",
        ("P1 kept", "P2 one run", "P4 true", "P4 refused", "the code it had"),
    ),
    Mutation(
        "take a starting job for a running one after a restart",
        "After a restart nobody knows whether a start arrived, so one that was promised is sent again.",
        "cluster/ledger.py",
        "                self.registry.put_job(lifecycle.unknown(job, RESTARTED, now))\n",
        "                self.registry.put_job(lifecycle.unknown(lifecycle.running(job, now), RESTARTED, now))\n",
        "store",
        ("lost only if destroyed",),
    ),
    Mutation(
        "lose a job that a heartbeat does not list",
        "A heartbeat that does not list a job may have crossed its start: the job is asked about by its id.",
        "cluster/workers/reconcile.py",
        "            self._rounds.begin(worker.id, lambda: unlisted, partial(self._ask_about, worker))\n",
        """\
            now = self._ledger.now()
            jobs = [lifecycle.lost(job, "no record", now) for job in unlisted]
            self._ledger.decide(*jobs).addErrback(lambda _: None)
""",
        "network",
        ("lost only if destroyed",),
    ),
    Mutation(
        "give up a start that is answered late",
        "A core worker tells its id of a job with the answer to the start: it is waited for.",
        "cluster/workers/reconcile.py",
        "            if job.id not in self._starts.late:\n",
        "            if job.state is JobState.UNKNOWN:\n",
        "core",
        ("a late answer counts",),
    ),
    # -- queue
    Mutation(
        "ignore priorities",
        "Of the jobs that wait, that of the highest priority goes first.",
        "cluster/jobs/lines.py",
        "        place = (-job.terms.priority, number, job.id)\n        insort",
        "        place = (0, number, job.id)\n        insort",
        "processes",
        ("priority, then age",),
    ),
    Mutation(
        "serve the last one first",
        "Of the jobs of one priority, the one that has waited longest goes first.",
        "cluster/jobs/lines.py",
        "        place = (-job.terms.priority, number, job.id)\n        insort",
        "        place = (-job.terms.priority, -number, job.id)\n        insort",
        "processes",
        ("priority, then age",),
    ),
    Mutation(
        "do not count jobs that are being committed",
        "A job that is being committed has a slot of its worker already.",
        "cluster/registry.py",
        "self.jobs.count_unfinished(worker_id) + self._reserved[worker_id]",
        "self.jobs.count_unfinished(worker_id)",
        "processes",
        ("slots",),
    ),
    Mutation(
        "do not free reserved slots",
        "The slot of a job whose commit failed is free again.",
        "cluster/registry.py",
        "        count_down(self._reserved, worker_id)\n",
        "",
        "processes",
        ("P1 ends",),
    ),
    Mutation(
        "hold workers off when the store fails",
        "A worker that was not called is not in backoff because the commit before the call failed.",
        "cluster/jobs/outcomes.py",
        "        case StoreFailed() | Unsupported():\n",
        "        case Unsupported():\n",
        "store",
        ("backoff has a cause",),
    ),
    # -- stops
    Mutation(
        "forget a stop of an unreachable worker",
        "A stop that can't be delivered is delivered when the worker is there again.",
        "cluster/jobs/stops.py",
        "            self._rounds.begin(worker_id, partial(self._undelivered, worker_id), self._deliver_again)\n",
        "            pass\n",
        "crashes",
        ("a stop is carried out",),
    ),
    Mutation(
        "deliver a stop while the end is saved",
        "A worker is not asked to stop a job whose end is being saved.",
        "cluster/jobs/stops.py",
        "            and job.id not in self._ledger.endings\n",
        "",
        "queue",
        ("no stop after the end",),
    ),
    Mutation(
        "retry a job that was stopped",
        "A stop ends the chain: no attempt follows.",
        "cluster/lifecycle.py",
        " or job.stop_requested_at is not None:\n        return None\n    if job.target is None",
        ":\n        return None\n    if job.target is None",
        "all",
        ("a stop ends the chain",),
    ),
    Mutation(
        "stop a job that nobody attends before that is durable",
        "A job is stopped for want of a client only when that is durable, with its reason.",
        "cluster/jobs/stops.py",
        "        if why is not None:\n",
        "        if False:\n",
        "store",
        ("P4 true", "checker P4"),
    ),
    # -- output
    Mutation(
        "ask for the output of a job that never began",
        "The output of a job that never began is empty.",
        "cluster/output/bounds.py",
        "0 if told is None and never_began(job) else told",
        "told",
        "queue",
        ("P3 there",),
    ),
    Mutation(
        "take a broken stream for the end of the output",
        "A stream that breaks is no end of the output: the follower goes on where it was.",
        "cluster/output/live.py",
        '        reason = result or Failure(Unavailable("the output ended without its end"))\n',
        """\
        self._enter(State.ENDED)
        self._wake()
        return
        reason = result or Failure(Unavailable("the output ended without its end"))
""",
        "output",
        ("P3 end",),
    ),
    # -- stops
    Mutation(
        "send a signal again",
        "A signal whose answer was lost may have arrived, and is not sent again: it arrives once, or not at all.",
        "cluster/jobs/signals.py",
        '            raise DeadlineExceeded(f"{name} to job {job_id}", error.seconds, job_id) from error\n',
        """\
            await self._client.signal_job(worker, job.id_on_worker, name, to)
""",
        "network",
        ("answers are true", "checker P7"),
    ),
)
