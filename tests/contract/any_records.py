"""Records that a store must keep exactly: strategies for all of them, and a large spec."""

from __future__ import annotations

from hypothesis import strategies as st

from scheduler.model import (
    FEATURES,
    SPEC_KEPT_MAX_CHARACTERS,
    STOP_MODES,
    STOP_SIGNALS,
    Job,
    JobSpec,
    JobState,
    RemovedJob,
    ScriptSummary,
    Usage,
    Worker,
)
from scheduler.request_keys import RequestKey
from scheduler.security.audit import Act
from scheduler.security.principals import Scope
from scheduler.security.token import Token
from scheduler.terms import QueueTerms, Retry, Target

#: A spec larger than the part of an ended job that stays in memory.
LARGE = JobSpec(
    command="x", args=("a" * SPEC_KEPT_MAX_CHARACTERS, 'ä"'), env={"E": "e"}, labels={"l": "v"}, stdin=b"in"
)

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
_SOME = st.none() | _TEXT
_TIME = st.floats(allow_nan=False, allow_infinity=False)
_COUNT = st.none() | st.integers(0, 2**63 - 1)
_MAPPING = st.dictionaries(_TEXT, _TEXT, max_size=3)
_BYTES = st.none() | st.binary(max_size=50)
_SPECS = st.builds(
    JobSpec,
    command=_TEXT,
    args=st.lists(_TEXT, max_size=3).map(tuple),
    path=_TEXT,
    env=_MAPPING,
    cwd=_TEXT,
    stdin=_BYTES,
    script=_BYTES,
    timeout=st.none() | _TIME,
    stop_grace=_TIME,
    labels=_MAPPING,
    merge_stderr=st.booleans(),
    output_limit=_COUNT,
    linger=_TIME,
    stop_signal=st.sampled_from(STOP_SIGNALS),
    stop_mode=st.sampled_from(STOP_MODES),
    umask=st.none() | st.integers(0, 0o777),
    script_summary=st.none() | st.builds(ScriptSummary, size=st.integers(0, 2**40), first_line=_TEXT),
)
_KEYS = st.none() | st.builds(RequestKey, key=_TEXT, fingerprint=_TEXT, principal=_SOME)
ANY_JOBS = st.builds(
    Job,
    id=st.uuids().map(str),
    spec=_SPECS,
    state=st.sampled_from(JobState),
    created_at=_TIME,
    key=_KEYS,
    worker_id=_SOME,
    worker_name=_SOME,
    remote_id=_SOME,
    reason=_SOME,
    created_by=_SOME,
    started_at=st.none() | _TIME,
    finished_at=st.none() | _TIME,
    exit_code=st.none() | st.integers(-(2**31), 2**31),
    signal=_SOME,
    stop_requested_at=st.none() | _TIME,
    unknown_since=st.none() | _TIME,
    stdout_bytes=_COUNT,
    stderr_bytes=_COUNT,
    group_id=_SOME,
    retry_of=_SOME,
    retried_by=_SOME,
    output_error=_SOME,
    leftover=st.lists(st.integers(1, 2**31), max_size=3).map(tuple),
    background_ended=st.integers(0, 1000),
    usage=st.none() | st.builds(Usage, max_rss=st.integers(0, 2**50), cpu_seconds=_TIME),
    remove_requested_at=st.none() | _TIME,
    stop_reason=_SOME,
    target=st.none() | st.builds(Target, worker=_SOME, selector=st.none() | _MAPPING),
    terms=st.builds(
        QueueTerms,
        queue_timeout=_TIME,
        priority=st.integers(-1000, 1000),
        retry=st.none() | st.builds(Retry, attempts=st.integers(0, 1000), delay=_TIME),
        unattended_timeout=st.none() | _TIME,
    ),
    promised=st.booleans(),
    orphan=st.booleans(),
)
ANY_WORKERS = st.builds(
    Worker,
    id=st.uuids().map(str),
    name=_TEXT,
    address=_TEXT,
    labels=_MAPPING,
    slots=_COUNT,
    draining=st.booleans(),
    boot_id=_TEXT,
    version=_SOME,
    features=st.frozensets(st.sampled_from(FEATURES)),
)
ANY_REMOVED = st.builds(RemovedJob, job_id=st.uuids().map(str), removed_at=_TIME, key=_KEYS)
ANY_TOKENS = st.builds(
    Token,
    id=st.uuids().map(str),
    name=_TEXT,
    scope=st.sampled_from([Scope.READ, Scope.RUN, Scope.ADMIN]),
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    created_at=_TIME,
    created_by=_TEXT,
    reach=_MAPPING,
    expires_at=st.none() | _TIME,
    last_used_at=st.none() | _TIME,
)

#: Acts of times that a calendar has.
ANY_ACTS = st.builds(
    Act,
    time=st.floats(0, 4e9),
    who=_TEXT,
    action=_TEXT,
    target=_TEXT,
    worker=_TEXT,
    result=_TEXT,
    origin=_TEXT,
    uid=st.none() | st.integers(0, 2**32 - 1),
    request_id=_TEXT,
    details=st.dictionaries(_TEXT, _TEXT | st.integers(0, 2**40) | st.lists(_TEXT, max_size=3), max_size=3),
)
