"""The mutations: each undoes a fix, or removes a line that a promise needs."""

from __future__ import annotations

from tests.simulation.mutations.mutation import Mutation

MUTATIONS: tuple[Mutation, ...] = (
    # -- durability
    Mutation(
        "acknowledge before the commit",
        "The end of a job is acknowledged to its worker only when it is durable: the worker may forget it then.",
        "cluster/workers/membership.py",
        """\
        try:
            await shielded(saved).addTimeout(SAVED_SHARE * self._liveness.lease, self._clock)
        except (StoreFailed, TimedOut):
            durable, reported = False, []  # it is alive all the same, and reports these ends again
""",
        """\
        saved.addErrback(lambda _: None)
        if reported:
            return HeartbeatAnswer(self._liveness.lease, tuple(reported), tuple(describe))
""",
        "crashes",
        ("acknowledged is stored", "lost only if destroyed"),
    ),
    Mutation(
        "show ends before the commit",
        "An end is shown only when it is durable: a final state never changes, not even by a crash.",
        "cluster/ledger.py",
        " = [job for job in jobs if job.id not in self.endings] if ends else jobs\n",
        " = jobs\n",
        "store",
        ("a final state stays",),
    ),
    Mutation(
        "show an end that could not be saved",
        "An end that a worker reports while the store fails is shown when it is durable, not before.",
        "cluster/endings.py",
        "        self._hold(ending, str(error))\n",
        "        self._show(ending)\n        return\n",
        "store",
        ("a final state stays",),
    ),
    Mutation(
        "forget an end that could not be saved",
        "An end that a worker reported is saved, and shown, when the store works again, also if its worker is gone.",
        "cluster/endings.py",
        "ending.held and ending.job is record:\n",
        "False:\n",
        "store",
        ("P5 agreement", "P1 ends"),
    ),
    Mutation(
        "keep a drain in memory only",
        "A drain that was answered survives a restart of the scheduler.",
        "cluster/ledger.py",
        "            await self._saving.save([after])\n",
        "",
        "store",
        ("a drain stays",),
    ),
    Mutation(
        "start before the commit",
        "A worker is told of a job only when that there is such a job is durable.",
        "cluster/jobs/submissions.py",
        "        since = self._clock.seconds()\n        await",
        """\
        since = self._clock.seconds()
        self._starts._client.start_job(worker, job).addErrback(lambda _: None)
        await""",
        "store",
        ("P4 refused", "one job for each key", "P2 one run"),
    ),
    Mutation(
        "dispatch without a commit",
        "A queued job goes to a worker only when it is durable to which: after a crash it would go to another, too.",
        "cluster/jobs/starts.py",
        "            await self._ledger.learn(job)  # so that a stop finds it starting\n",
        "            await self._ledger.learn(job, lazily=True)\n",
        "crashes",
        ("P2 one run", "P4 true", "the code it had", "a final state stays"),
    ),
    Mutation(
        "do not save keys",
        "A key is durable with its job: a request sent again after a crash starts nothing again.",
        "cluster/ledger.py",
        ", *self.gone, *self.keys]\n",
        ", *self.gone]\n",
        "store",
        ("one job for each key",),
    ),
    Mutation(
        "keep the key of a job that never was",
        "The key of a job whose start never left is free again.",
        "cluster/registry.py",
        '        self.remove_key(self._key_of.get(job_id, ""))\n',
        "",
        "network",
        ("answers are true",),
    ),
    Mutation(
        "save the next attempt after the end",
        "The next attempt of a job is committed with the end it follows: no crash comes between them.",
        "cluster/ledger.py",
        "        saved = self._saving.save(records)\n",
        """\
        following = [ending.following for ending in plan.ends if ending.following is not None]
        saved = self._saving.save([record for record in records if record not in following])
        for job in following:
            self._saving.note(job)
""",
        "crashes",
        ("shown is stored",),
    ),
    Mutation(
        "forget what could not be saved",
        "What the store did not take is brought to it again.",
        "cluster/saving.py",
        "        except StoreFailed as error:\n            self._owe(records)\n",
        "        except StoreFailed as error:\n",
        "store",
        ("a final state stays", "acknowledged is stored", "one job for each key", "P5 agreement", "P1 ends"),
    ),
    Mutation(
        "change a job while its end is saved",
        "Nothing changes a job whose end is being saved: the store would have the later change.",
        "cluster/ledger.py",
        "        return job_id in self.endings or job_id in self._leaving\n",
        "        return job_id in self._leaving\n",
        "crashes",
        ("a final state stays", "acknowledged is stored", "lost only if destroyed"),
    ),
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
            status = await self._client.start_job(worker, job, key=request_of(self._registry, job))
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
        "        place = (-job.terms.priority, number, job.id)\n        alone",
        "        place = (0, number, job.id)\n        alone",
        "processes",
        ("priority, then age",),
    ),
    Mutation(
        "serve the last one first",
        "Of the jobs of one priority, the one that has waited longest goes first.",
        "cluster/jobs/lines.py",
        "        place = (-job.terms.priority, number, job.id)\n        alone",
        "        place = (-job.terms.priority, -number, job.id)\n        alone",
        "processes",
        ("priority, then age",),
    ),
    Mutation(
        "do not count jobs that are being committed",
        "A job that is being committed has a slot of its worker already.",
        "cluster/registry.py",
        "len(self._unfinished.get(worker_id, ())) + self._reserved[worker_id]",
        "len(self._unfinished.get(worker_id, ()))",
        "processes",
        ("slots",),
    ),
    Mutation(
        "do not free reserved slots",
        "The slot of a job whose commit failed is free again.",
        "cluster/registry.py",
        "        self._reserved[worker_id] -= 1\n",
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
        "            self._rounds.begin(worker.id, partial(self._undelivered, worker.id), self._deliver_again)\n",
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
    # -- workers
    Mutation(
        "believe that calls reach a worker that registers again",
        "A worker is online once a call to it was answered where it listens now.",
        "cluster/workers/liveness.py",
        "        self._pulses[worker_id] = Pulse()\n",
        "        self._pulses[worker_id] = Pulse(answered=self._pulse(worker_id).answered)\n",
        "identity",
        ("online has answered",),
    ),
    Mutation(
        "refuse starts for workers that may be there",
        "A start waits for a worker that has just registered, or was not heard since the scheduler was started.",
        "cluster/jobs/choice.py",
        "                if waiting is None:\n",
        "                if waiting is None or True:\n",
        "processes",
        ("a start waits",),
    ),
    Mutation(
        "do not call the workers that were loaded",
        "The scheduler calls its workers when it is started again, and they are back at once.",
        "cluster/workers/liveness.py",
        "        self._first_calls.begin()\n",
        "        pass\n",
        "processes",
        ("back after a restart",),
    ),
    Mutation(
        "take the answer to a probe for that of a worker",
        "A program that is no worker may answer probes: it is online only when it answers as a worker.",
        "cluster/workers/liveness.py",
        " and (asks or not pulse.no_worker):\n",
        ":\n",
        "all",
        ("no worker, no job",),
    ),
    Mutation(
        "give an id to whoever knows it",
        "An id is public: it is that of the worker that shows its folder id.",
        "cluster/workers/ids.py",
        "    of_earlier = not folder and not registration.nonce\n",
        "    of_earlier = not folder\n",
        "identity",
        ("an id is its worker's",),
    ),
    Mutation(
        "hear a core worker",
        "A core worker sends no heartbeats: those in its name are not believed.",
        "cluster/workers/membership.py",
        "        if worker is None or worker.is_core or heartbeat.nonce != worker.nonce:\n",
        "        if worker is None or heartbeat.nonce != worker.nonce:\n",
        "core",
        ("an id is its worker's",),
    ),
    Mutation(
        "register without the folder id",
        "A worker's id follows from its folder: one that was not told its id gets it again.",
        "worker/conversation.py",
        "            folder_id=identity.folder_id,\n",
        "",
        "identity",
        ("lost only if destroyed", "P5 agreement", "one entry for each worker"),
    ),
    Mutation(
        "do not keep the worker id",
        "A worker's id outlives its process.",
        "worker/conversation.py",
        "            self._held_id.write(registered.worker_id)\n",
        "",
        "processes",
        ("lost only if destroyed", "P5 agreement"),
    ),
    Mutation(
        "report an end once",
        "What was reported and not acknowledged is reported again.",
        "worker/reports.py",
        "        self._told.clear()\n",
        "",
        "network",
        ("P5 agreement", "nothing left"),
    ),
    Mutation(
        "take a report for acknowledged",
        "A worker keeps an end until the scheduler has acknowledged it.",
        "worker/conversation.py",
        "            answer: HeartbeatAnswer = await self._client.heartbeat(heartbeat)\n",
        """\
            self._jobs.acknowledge(report.status.job_id for report in heartbeat.ended)
            answer: HeartbeatAnswer = await self._client.heartbeat(heartbeat)
""",
        "crashes",
        ("lost only if destroyed",),
    ),
    Mutation(
        "forget a worker that deregisters",
        "A worker that deregisters stays listed.",
        "cluster/workers/membership.py",
        "stays = stays_listed(worker, self._ledger.registry.running_jobs(worker_id) > 0, self._forget_after)",
        "stays = False",
        "processes",
        ("an offline worker stays listed", "a drain stays"),
    ),
    Mutation(
        "forget a core worker that has jobs",
        "A core worker that deregisters stays listed as long as it has unfinished jobs.",
        "cluster/workers/forgetting.py",
        "    return has_jobs if worker.is_core else keep > 0\n",
        "    return keep > 0 and not worker.is_core\n",
        "core",
        ("a core worker is listed with its jobs",),
    ),
    Mutation(
        "forget the drain of a worker that deregisters",
        "It stays listed with its drain.",
        "cluster/workers/membership.py",
        "state=WorkerState.OFFLINE, deregistered_at=now,",
        "state=WorkerState.OFFLINE, draining=False, deregistered_at=now,",
        "processes",
        ("an offline worker stays listed", "a drain stays"),
    ),
    Mutation(
        "take an offline worker for one that is silent",
        "A worker that deregistered is offline after a restart of the scheduler, too.",
        "cluster/ledger.py",
        "is_expected = worker.deregistered_at is None",
        "is_expected = True",
        "processes",
        ("an offline worker stays listed",),
    ),
    Mutation(
        "let a late call say that an offline worker lives",
        "A worker that deregistered is offline, whatever a late call says.",
        "cluster/registry.py",
        "return None if worker is None or worker.state is WorkerState.OFFLINE else worker",
        "return worker",
        "processes",
        ("an offline worker stays listed",),
    ),
    Mutation(
        "lose the jobs of a worker that deregisters",
        "A worker that deregisters may come back under its id: its unfinished jobs are unknown, not lost.",
        "cluster/workers/membership.py",
        "lifecycle.unknown(job, why, now) for job in unfinished",
        "lifecycle.lost(job, why, now) for job in unfinished",
        "crashes",
        ("lost only if destroyed",),
    ),
    Mutation(
        "take a worker that comes back for one of the past",
        "A worker that leaves and comes back says the count that this process told it: nothing was set back.",
        "cluster/commit_counts.py",
        "            self._gone[worker_id] = None\n",
        "            self._told.discard(worker_id)\n",
        "processes",
        ("set back is true",),
    ),
)
