"""Composition root of ``twistd scheduler``: what there is, and in which order it starts and, backwards, stops."""

from __future__ import annotations

import time
from typing import Any

from twisted.application.service import IService

from scheduler import startup
from scheduler.api.server import HttpServer
from scheduler.api.site import make_site
from scheduler.cluster.addresses import DialRule, resolving
from scheduler.cluster.attendance import Attendance
from scheduler.cluster.ledger import Ledger
from scheduler.cluster.liveness import Liveness
from scheduler.cluster.membership import Membership
from scheduler.cluster.observed_client import ObservedClient
from scheduler.cluster.outlook import Outlook
from scheduler.cluster.output import Outputs
from scheduler.cluster.polling import Polling
from scheduler.cluster.queue import Queue
from scheduler.cluster.reconcile import Reconciler
from scheduler.cluster.removals import Removals
from scheduler.cluster.retention import Retention
from scheduler.cluster.service import Cluster
from scheduler.cluster.signals import Signals
from scheduler.cluster.starts import Starts
from scheduler.cluster.stops import Stops
from scheduler.cluster.waiting import Waiting
from scheduler.logs import LoggingService
from scheduler.rpc import credentials
from scheduler.rpc.scheduler_server import scheduler_server
from scheduler.rpc.worker_client import WorkerClient
from scheduler.services import Ordered, Step
from scheduler.store import database
from scheduler.store.sql import make_store


class Options(startup.SchedulerOptions):
    """See ``scheduler.startup``."""

    check_tls = staticmethod(credentials.check)
    open_database = staticmethod(database.prepare)


def makeService(options: Options) -> IService:
    """Nothing runs, and nothing of grpc exists, before it is started."""
    from twisted.internet import reactor as installed  # noqa: PLC0415 - by now, as twistd was told

    reactor: Any = installed  # its type says least of all that it is
    startup.use_monotonic_time(reactor)
    config, state = options.config, options.state
    tls = config.grpc_server.tls

    store = make_store(reactor, options.database)
    ledger = Ledger(reactor, time.time, store)
    calls = WorkerClient(reactor, tls)
    liveness = Liveness(reactor, ledger, calls.probe, config.cluster.lease)
    workers = ObservedClient(calls, liveness)
    rule = DialRule(config.cluster.allowed_networks, resolving(reactor.nameResolver), keep_names=tls is not None)
    waiting = Waiting()
    starts = Starts(reactor, ledger, workers, waiting, config.cluster.queue_max)
    queue = Queue(reactor, ledger, starts, waiting)
    stops = Stops(reactor, ledger, workers, starts)
    removals = Removals(ledger, workers, starts)
    reconciler = Reconciler(ledger, workers, starts, removals)
    membership = Membership(ledger, liveness, workers, rule, reconciler)
    outputs = Outputs(reactor, workers, ledger.registry)
    attendance = Attendance(reactor, ledger.registry, stops)
    outlook = Outlook(reactor, ledger, waiting, queue, starts.backoff)
    signals = Signals(ledger.registry, workers, starts)
    cluster = Cluster(ledger, starts, stops, signals, removals, reconciler, membership, outputs, attendance, outlook)
    ledger.listen(outlook.job_changed, outlook.worker_changed)  # first: whoever is told after it may ask
    ledger.listen(outputs.job_changed, outputs.worker_changed)
    ledger.listen(stops.job_changed, stops.worker_changed)
    ledger.listen(queue.job_changed, queue.worker_changed)
    ledger.listen(on_worker=removals.worker_changed)
    ledger.listen(attendance.job_changed)
    grpc = scheduler_server(reactor, config.grpc_server.addr, tls, membership)
    site = make_site(cluster, reactor, time.time, config.http_server.allowed_hosts)
    http = HttpServer(reactor, config.http_server.addr, site, config.shutdown_timeout / 2)

    top = LoggingService(reactor, options.parent, config.log_format, config.log_level)
    parts = Ordered(reactor, config.shutdown_timeout, startup.end_after, startup.end_with_failure)
    parts.setServiceParent(top)
    for part in (
        store,
        Step(start=ledger.load, stop=ledger.close),
        Retention(reactor, ledger, config.store.keep_jobs),
        calls,
        Step(stop=outputs.shut_down),
        Step(start=removals.begin, stop=cluster.shut_down),
        liveness,
        Polling(reactor, ledger.registry, cluster.query),
        queue,
        grpc,
        http,
        attendance,
        Step(stop=cluster.refuse),
        startup.announcement(state, http=http, grpc=grpc),
    ):
        part.setServiceParent(parts)
    return top
