"""Composition root of ``twistd worker``: its parts start in this order, and stop in the opposite order."""

from __future__ import annotations

import random
import time
import uuid
from typing import Any

from twisted.application.service import IService

from scheduler.daemon import descriptors, signals, startup
from scheduler.daemon.expiry import ExpiryWatch
from scheduler.daemon.services import Step
from scheduler.messages import Registration
from scheduler.rpc.callers import caller_rules
from scheduler.rpc.local_callers import LocalCallers
from scheduler.rpc.scheduler_client import SchedulerClient
from scheduler.rpc.worker_server import worker_server
from scheduler.security.socket_owners import SocketOwners
from scheduler.threads import Pool
from scheduler.worker import folder
from scheduler.worker.commands import Policy
from scheduler.worker.commit_count import CommitCountFile
from scheduler.worker.conversation import Conversation
from scheduler.worker.disk import DiskGauge
from scheduler.worker.environment import BaseEnvironment
from scheduler.worker.jobs import Jobs
from scheduler.worker.launcher import Launcher
from scheduler.worker.life import JobLives
from scheduler.worker.link import Link
from scheduler.worker.own_ids import IdFile, OwnIds, check_worker, registration
from scheduler.worker.retention import RetentionLimits
from scheduler.worker.runner import JobRunner
from scheduler.worker.spools import Spools
from scheduler.worker.starting import Starter
from scheduler.worker.used_ids import UsedIds
from scheduler.worker.watch import OutputWatch

#: Threads for the spools: starts wait there for their shims, and all the others for the disk.
SPOOL_THREADS = 16


class Options(startup.WorkerOptions):
    """Options of ``twistd worker``; see ``scheduler.daemon.startup``."""

    open_folder = staticmethod(folder.open_folder)
    check_worker = staticmethod(check_worker)


def makeService(options: Options) -> IService:
    """Make the worker. No part runs, and no grpc object exists, before the service is started."""
    from twisted.internet import reactor as installed  # noqa: PLC0415 - twistd has installed it by now

    reactor: Any = installed  # its type lacks most of its interfaces
    startup.use_monotonic_time(reactor)
    signals.stop_once(reactor)
    config, state, settings = options.config, options.state, options.config.worker
    tls = config.grpc_server.tls

    environment = BaseEnvironment(settings.env)
    policy = Policy(
        str(settings.scripts_dir), settings.scripts_only, settings.allowed_commands, environment, settings.allowed_env
    )
    launcher = Launcher(str(state.path / "shims.log"), min(options.descriptors, descriptors.JOBS_MAX))
    used = UsedIds(str(state.path / folder.USED_IDS))
    jobs_dir, min_free, most = str(state.path / folder.JOBS), settings.spool_min_free, settings.output_limit
    spools = Spools(jobs_dir, used, time.time)
    starter = Starter(spools, used, policy, launcher, time.time, min_free, most, options.umask)
    limits = RetentionLimits(settings.keep_spool, settings.spool_max, min_free)
    pool = Pool(reactor, "spools", SPOOL_THREADS, least=1)
    watch = OutputWatch(reactor)
    jobs = Jobs(reactor, pool, spools, limits)
    lives = JobLives(reactor, pool, spools, starter, time.time, jobs)
    runner = JobRunner(reactor, pool, spools, watch, time.time, jobs, lives)
    disk = DiskGauge(reactor, pool, jobs_dir)
    identity = OwnIds(reactor.callFromThread, options.folder.folder_id, uuid.uuid4().hex)
    owners = SocketOwners()
    callers = LocalCallers(config.grpc_server, owners.owner_of, lambda: grpc.bound)
    rules = caller_rules(config.grpc_server)
    grpc = worker_server(reactor, config.grpc_server.addr, tls, runner, identity, rules, [callers.check_thd])
    scheduler = SchedulerClient(reactor, config.scheduler, tls)

    def own_facts() -> Registration:
        return registration(settings, str(settings.advertise_addr or grpc.bound))

    held_id = IdFile(state.path / folder.WORKER_ID)
    commit_count = CommitCountFile(pool, str(state.path / folder.COMMIT_COUNT))
    rng = random.SystemRandom()
    conversation = Conversation(
        reactor, scheduler, jobs, own_facts, held_id, commit_count, identity, rng, time.time, disk.read
    )
    return startup.make_process(
        reactor,
        options,
        ExpiryWatch(reactor, time.time, tls),
        Step(stop=launcher.close),
        Step(stop=used.close),
        pool,
        Step(start=options.folder.announce),
        Step(stop=watch.close),
        Step(start=runner.recover, stop=runner.shut_down),
        scheduler,
        Step(stop=owners.close),
        grpc,
        Link(reactor, scheduler, jobs, identity, conversation, rng),
        grpc=grpc,
    )
