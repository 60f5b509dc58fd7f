"""Mutations of the code for durability: commits, acknowledgements, and what is taken back."""

from __future__ import annotations

from tests.simulation.mutations.mutation import Mutation

DURABILITY: tuple[Mutation, ...] = (
    Mutation(
        "acknowledge before the commit",
        "The end of a job is acknowledged to its worker only when it is durable: the worker may forget it then.",
        "cluster/workers/heartbeats.py",
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
        "            await self._saving.save([after], decided=True)\n",
        "",
        "store",
        ("a drain stays",),
    ),
    Mutation(
        "start before the commit",
        "A worker is told of a job only when that there is such a job is durable.",
        "cluster/jobs/submissions.py",
        "        chosen = self._clock.seconds()\n",
        """\
        chosen = self._clock.seconds()
        self._starts._client.start_job(worker, job).addErrback(lambda _: None)
""",
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
        "        return [*self.jobs, ",
        "        return [*(evolve(job, key=None) for job in self.jobs), ",
        "store",
        ("one job for each key",),
    ),
    Mutation(
        "take the keys of all principals for the same",
        "Two principals that use the same text as their key have two keys.",
        "request_keys.py",
        "        return self.principal, self.key\n",
        "        return None, self.key\n",
        "network",
        ("answers are true", "one job for each key"),
    ),
    Mutation(
        "keep the key of a job that never was",
        "The key of a job whose start never left is free again.",
        "cluster/registry.py",
        "        self._drop_key(job)\n",
        "",
        "network",
        ("indices", "one job for each key"),
    ),
    Mutation(
        "save the next attempt after the end",
        "The next attempt of a job is committed with the end it follows: no crash comes between them.",
        "cluster/ledger.py",
        "        saved = self._saving.save(records, decided)\n",
        """\
        following = [ending.following for ending in plan.ends if ending.following is not None]
        saved = self._saving.save([record for record in records if record not in following], decided)
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
        "        except StoreFailed as error:\n            self._owe(records, kept)\n",
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
)
