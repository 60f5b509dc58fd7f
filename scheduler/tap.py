"""Composition root of ``twistd scheduler``: its parts, in the order in which they start and, reversed, stop."""

from __future__ import annotations

import time
import uuid
from typing import Any

from twisted.application.service import IService

from scheduler.api.server import HttpServer, make_site
from scheduler.api.unix_server import UnixServer
from scheduler.cluster.build import make_cluster, random_id
from scheduler.daemon import descriptors, signals, startup
from scheduler.daemon.expiry import ExpiryWatch
from scheduler.daemon.services import Periodic, Step
from scheduler.limits import max_connections
from scheduler.net import DialRule, is_listener, resolving
from scheduler.rpc.callers import caller_rules
from scheduler.rpc.local_callers import LocalCallers
from scheduler.rpc.scheduler_server import scheduler_server
from scheduler.rpc.worker_client import WorkerClient
from scheduler.security.authentication import Authentication
from scheduler.security.first_token import FirstToken
from scheduler.security.local_users import LocalUsers
from scheduler.security.socket_owners import SocketOwners
from scheduler.security.tokens import EXPIRY_INTERVAL_SECONDS
from scheduler.store import databases
from scheduler.store.sql import make_store


class Options(startup.SchedulerOptions):
    """See ``scheduler.daemon.startup``."""

    open_database = staticmethod(databases.prepare)


def makeService(options: Options) -> IService:
    """Make the service. Nothing runs, and no grpc object exists, before it is started."""
    from twisted.internet import reactor as installed  # noqa: PLC0415 - twistd has installed its reactor by now

    reactor: Any = installed  # it has no type that includes all that it provides
    startup.use_monotonic_time(reactor)
    signals.stop_once(reactor)
    config, settings = options.config, options.config.http_server
    tls = config.grpc_server.tls

    store = make_store(reactor, options.database)
    calls = WorkerClient(reactor, tls, uuid.uuid4().hex)
    verify_hosts = tls is not None and options.identity is None
    rule = DialRule(config.cluster.allowed_networks, resolving(reactor.nameResolver), keep_names=verify_hosts)
    expiry = ExpiryWatch(reactor, time.time, tls, settings.tls)
    cluster = make_cluster(
        reactor,
        time.time,
        random_id,
        store,
        calls,
        rule,
        lease=config.cluster.lease,
        queue_max=config.cluster.queue_max,
        keep_jobs=config.store.keep_jobs,
        forget_after=config.cluster.forget_after,
        is_own_address=lambda address: any(is_listener(address, each.bound) for each in (grpc, http) if each.bound),
        notes=expiry.notes,
    )
    owners = SocketOwners()
    callers = LocalCallers(config.grpc_server, owners.owner_of, lambda: grpc.bound)
    rules = caller_rules(config.grpc_server)
    grpc = scheduler_server(
        reactor,
        config.grpc_server.addr,
        tls,
        cluster.membership,
        rules,
        callers,
        cluster.audit.refused_call,
    )
    local_users = LocalUsers(settings.local_users, time.monotonic)
    authentication = Authentication(cluster.tokens, local_users, settings.allow_insecure)
    site = make_site(
        cluster.service,
        authentication,
        reactor,
        time.time,
        settings.allowed_hosts,
        max_connections(descriptors.limit()),
        config.limits,
        settings.trusted_proxies,
        owners.owner_of,
        cluster.audit,
    )
    http = HttpServer(reactor, settings.addr, site, config.shutdown_timeout / 2, settings.tls)
    unix = {} if settings.unix is None else {"unix": UnixServer(reactor, settings.unix, site)}

    return startup.make_process(
        reactor,
        options,
        expiry,
        store,
        *cluster.records,
        Step(start=FirstToken(cluster.tokens, config.state_dir, cluster.audit).make),
        Periodic(reactor, EXPIRY_INTERVAL_SECONDS, cluster.tokens.look),
        calls,
        *cluster.work,
        Step(stop=owners.close),
        grpc,
        http,
        *unix.values(),
        *cluster.admission,
        http=http,
        grpc=grpc,
        **unix,
    )
