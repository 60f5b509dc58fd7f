"""Builds the parts of the scheduler and connects them: for ``twistd scheduler``, and for every test of the whole.

Each part is made from the ones above it. ``make_cluster`` also subscribes the listeners of the change feed.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.application.service import IService
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.changes import ChangeFeed
from scheduler.cluster.expected import Expected
from scheduler.cluster.jobs.attendance import Attendance
from scheduler.cluster.jobs.backoff import Backoff
from scheduler.cluster.jobs.choice import Choice
from scheduler.cluster.jobs.dispatcher import Dispatcher
from scheduler.cluster.jobs.flights import Flights
from scheduler.cluster.jobs.keys import Keys
from scheduler.cluster.jobs.lines import Lines
from scheduler.cluster.jobs.outlook import Outlook
from scheduler.cluster.jobs.queue import Queue
from scheduler.cluster.jobs.removals import Removals
from scheduler.cluster.jobs.retention import Retention
from scheduler.cluster.jobs.signals import Signals
from scheduler.cluster.jobs.starts import Starts
from scheduler.cluster.jobs.stops import Stops
from scheduler.cluster.jobs.submissions import Submissions
from scheduler.cluster.ledger import MAX_FINISHED_JOBS, Ledger
from scheduler.cluster.output.outputs import WINDOW_BYTES, Outputs
from scheduler.cluster.reach import Reach
from scheduler.cluster.service import Cluster
from scheduler.cluster.set_back import SetBack
from scheduler.cluster.waits import Waits
from scheduler.cluster.workers.forgetting import Forgetting
from scheduler.cluster.workers.liveness import Liveness
from scheduler.cluster.workers.membership import Membership
from scheduler.cluster.workers.observed import ObservedClient
from scheduler.cluster.workers.polling import Polling
from scheduler.cluster.workers.queries import Queries
from scheduler.cluster.workers.reconcile import Reconciler
from scheduler.daemon.services import Periodic, Step
from scheduler.interfaces import IStore, IWorkerClient
from scheduler.net import DialRule
from scheduler.random_ids import random_uuid
from scheduler.security.tokens import Tokens
from scheduler.security.trail import MINUTE_SECONDS, Audit

#: Seconds between looks at the count of the store's commits, for when nothing is saved.
VERIFY_INTERVAL_SECONDS = 5.0

#: Seconds after which stops and removals that a worker has not taken are delivered to it again.
RETRY_INTERVAL_SECONDS = 5.0


@frozen(kw_only=True)
class ClusterParts:
    """The parts of a cluster. Its services start in the order of the three groups, and stop in the opposite order.

    ``records``: load the registry from the store, which must run. ``work``: start jobs and look after workers; calls to
    workers must be possible. ``admission``: clients and workers can ask, once their servers run, and the loaded workers
    are called.
    """

    ledger: Ledger
    feed: ChangeFeed
    expected: Expected
    liveness: Liveness
    lines: Lines
    backoff: Backoff
    flights: Flights
    starts: Starts
    queue: Queue
    submissions: Submissions
    stops: Stops
    removals: Removals
    outputs: Outputs
    attendance: Attendance
    outlook: Outlook
    set_back: SetBack
    reconciler: Reconciler
    polling: Polling
    forgetting: Forgetting
    membership: Membership
    service: Cluster
    tokens: Tokens
    audit: Audit
    records: tuple[IService, ...]
    work: tuple[IService, ...]
    admission: tuple[IService, ...]


def random_id() -> str:
    """A new id of a job or a worker."""
    return str(random_uuid())


def make_cluster(
    clock: IReactorTime,
    wall_time: Callable[[], float],
    new_id: Callable[[], str],
    store: IStore,
    calls: IWorkerClient,
    rule: DialRule,
    *,
    lease: float,
    queue_max: int,
    keep_jobs: float,
    forget_after: float,
    window: int = WINDOW_BYTES,
    keep_finished: int = MAX_FINISHED_JOBS,
    is_own_address: Callable[[str], bool] = lambda _: False,
    notes: Callable[[], tuple[str, ...]] = tuple,
) -> ClusterParts:
    """All parts of the scheduler between its store and its workers; none of them runs yet.

    ``clock`` measures elapsed time, ``wall_time`` gives POSIX times, ``new_id`` the ids of jobs and workers.
    ``lease``, ``keep_jobs`` and ``forget_after`` in seconds; at most ``queue_max`` jobs may be queued.
    ``is_own_address`` says of a ``host:port`` whether this scheduler listens there itself.
    ``notes`` makes the notes of ``Readiness``.
    At most ``keep_finished`` jobs that have ended are kept.
    ``window`` is the number of bytes of each followed stream that are kept in memory.
    """
    ledger = Ledger(clock, wall_time, store, keep_finished)
    registry = ledger.registry
    audit = Audit(clock, wall_time, store, ledger.record)
    waits = Waits(clock, registry, ledger.feed)
    expected = Expected(clock, registry)
    liveness = Liveness(clock, ledger, calls, expected, lease)
    workers = ObservedClient(calls, liveness)
    reach = Reach(registry)
    set_back = SetBack(clock, ledger, store, lease)
    waiting = Lines()
    backoff = Backoff(clock, registry)
    choice = Choice(clock, registry, waiting, backoff, expected, reach)
    flights = Flights(registry)
    starts = Starts(clock, ledger, workers, choice, backoff, reach, flights)
    dispatcher = Dispatcher(clock, ledger, starts, backoff, flights, waiting, set_back)
    queue = Queue(clock, ledger, choice, flights, waiting, set_back, dispatcher, queue_max)
    submissions = Submissions(clock, new_id, ledger, Keys(registry, set_back, flights), choice, queue, starts, flights)
    stops = Stops(clock, ledger, workers, flights, starts.late, reach, set_back, waits, liveness.probed)
    removals = Removals(ledger, workers, flights, reach)
    reconciler = Reconciler(ledger, workers, starts, queue, flights, backoff, removals, set_back, liveness.probed)
    membership = Membership(
        clock, new_id, ledger, liveness, workers, rule, is_own_address, reconciler, set_back, forget_after
    )
    outputs = Outputs(clock, workers, reach, window)
    attendance = Attendance(clock, registry, stops)
    outlook = Outlook(clock, ledger, waiting, queue, backoff)
    signals = Signals(workers, flights, reach)
    queries = Queries(flights, reach, reconciler)
    service = Cluster(
        ledger,
        waits,
        submissions,
        flights,
        backoff,
        stops,
        signals,
        removals,
        queries,
        membership.departures,
        outputs,
        attendance,
        outlook,
        notes,
    )
    tokens = Tokens(wall_time, ledger, registry.tokens, stops.stop_matching, registry.jobs.listing.matching)
    polling = Polling(clock, registry, service.query, flights.__contains__, liveness.probed)
    forgetting = Forgetting(clock, ledger, service.forget, membership.departures.unlist, forget_after)

    for part in (outputs, stops, queue, removals, attendance):
        ledger.feed.subscribe(part.hear)
    ledger.enter_queue = queue.stand
    expected.on_wanted = liveness.first_calls.now

    return ClusterParts(
        ledger=ledger,
        feed=ledger.feed,
        expected=expected,
        liveness=liveness,
        lines=waiting,
        backoff=backoff,
        flights=flights,
        starts=starts,
        queue=queue,
        submissions=submissions,
        stops=stops,
        removals=removals,
        outputs=outputs,
        attendance=attendance,
        outlook=outlook,
        set_back=set_back,
        reconciler=reconciler,
        polling=polling,
        forgetting=forgetting,
        membership=membership,
        service=service,
        tokens=tokens,
        audit=audit,
        records=(
            Step(start=ledger.load, stop=ledger.close),
            Step(start=lambda: audit.begin(ledger.audit_head), stop=audit.end_minute),
            Periodic(clock, MINUTE_SECONDS, audit.end_minute),
            Step(start=tokens.begin),
            Periodic(clock, VERIFY_INTERVAL_SECONDS, set_back.verify),
            Retention(clock, ledger, keep_jobs),
        ),
        work=(
            set_back,
            Step(stop=outputs.shut_down),
            Step(stop=service.shut_down),
            Periodic(clock, RETRY_INTERVAL_SECONDS, stops.retry),
            Periodic(clock, RETRY_INTERVAL_SECONDS, removals.retry, at_once=True),
            liveness,
            polling,
            queue,
            forgetting,
        ),
        admission=(Step(start=liveness.first_calls.begin), attendance, Step(stop=service.refuse)),
    )
