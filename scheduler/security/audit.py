"""The audit: acts, the chain of entries that records them, and the check of that chain.

An act is one request to change something, or one that was refused. The store numbers acts, and keeps each as an entry
with a hash: the SHA-256 of the previous entry's hash and of the entry's own row. So nobody can change, remove, insert
or move an entry without changing the hash of every later entry. Whoever can write to the store can change these, too.
Only a hash that was kept elsewhere, an ``Anchor``, shows that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Any

from attrs import evolve, field, frozen

from scheduler.texts import bounded_text, cut_tokens

#: The hash before the first entry.
GENESIS = "0" * 64

#: The result of an act that was carried out, or is recorded to be carried out, and of one that had nothing to change.
OK, UNCHANGED = "ok", "unchanged"

#: The result of a start that its worker refused, or could not carry out: a second act, since the first made the job.
NOT_STARTED = "not-started"

#: Bytes kept of a text of an act, and characters of the JSON of its details.
TEXT_MAX_BYTES, DETAILS_MAX_CHARACTERS = 512, 8192

Details = Mapping[str, Any]


def _milliseconds(time: float) -> float:
    return round(time, 3)


def _text(text: str) -> str:
    usual = text.isascii() and text.isprintable() and len(text) <= TEXT_MAX_BYTES
    return text if usual else bounded_text(text, TEXT_MAX_BYTES)


def _details(details: Details | str) -> str:
    """The details as canonical JSON, which a text must be already. Of details that are too large a note is left."""
    text = details if isinstance(details, str) else compact(details)
    return text if len(text) <= DETAILS_MAX_CHARACTERS else compact({"omitted": len(text)})


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def compact(value: Any) -> str:
    """The canonical JSON of a value: ASCII, without spaces, names sorted."""
    return _ENCODER.encode(value)


@frozen
class Act:
    """An act. Texts are cut to ``TEXT_MAX_BYTES``, with U+FFFD for each character that is not printable."""

    #: POSIX time, to the millisecond.
    time: float = field(converter=_milliseconds)
    #: The principal, like ``token:ci``; ``""``: the request had none.
    who: str = field(converter=_text)
    action: str = field(converter=_text)
    #: The id of the job, the name of the worker or token, or the method and path of a refused request.
    target: str = field(default="", converter=_text)
    #: The name of the job's worker; ``""`` if it has none, or is not known.
    worker: str = field(default="", converter=_text)
    #: ``OK``, ``UNCHANGED``, or the name of the error.
    result: str = field(default=OK, converter=_text)
    #: The address that the request came from, and the uid of the local user who sent it, if that is known.
    origin: str = field(default="", converter=_text)
    uid: int | None = None
    request_id: str = field(default="", converter=_text)
    #: A JSON object, as ``compact`` writes it.
    details: str = field(default="{}", converter=_details)


@frozen
class Sender:
    """The sender of a request, as its acts are recorded."""

    #: The principal; ``""``: the request had none.
    who: str = ""
    #: The address and the local user that the request came from, and its id.
    origin: str = ""
    uid: int | None = None
    request_id: str = ""

    def act(
        self, time: float, action: str, target: str, worker: str = "", result: str = OK, details: Details | None = None
    ) -> Act:
        """An act of this sender, at that POSIX time. A token that was sent in place of a name or an id is cut."""
        sent = (self.origin, self.uid, self.request_id)
        return Act(time, self.who, action, cut_tokens(target), cut_tokens(worker), result, *sent, details or {})


@frozen
class Anchor:
    """The number and the hash of an entry; of no entry: 0 and ``GENESIS``."""

    seq: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """Read ``SEQ:HASH``. Raises ``ValueError`` for any other text."""
        seq, _, digest = text.strip().partition(":")
        if not (seq.isascii() and seq.isdigit() and len(seq) < 19 and len(digest) == len(GENESIS)):
            raise ValueError("must be SEQ:HASH, as the log has it: a number, a colon and 64 hexadecimal digits")
        if set(digest.lower()) - set("0123456789abcdef"):
            raise ValueError("must be SEQ:HASH, as the log has it: the hash has 64 hexadecimal digits")
        return cls(int(seq), digest.lower())


@frozen
class Entry:
    """An act with its number, from 1 on, and its hash."""

    seq: int
    act: Act
    hash: str

    @property
    def anchor(self) -> Anchor:
        """The number and the hash."""
        return Anchor(self.seq, self.hash)

    def row(self) -> dict[str, Any]:
        """The entry without its hash, as JSON that ``entry_of`` reads."""
        act = self.act
        return {
            "seq": self.seq,
            "time": time_text(act.time),
            "who": act.who,
            "from": act.origin,
            "uid": act.uid,
            "action": act.action,
            "target": act.target,
            "worker": act.worker,
            "result": act.result,
            "request_id": act.request_id,
            "details": _object(act.details),
        }

    def follows(self, previous: str) -> bool:
        """Whether this entry's hash is right after one with the hash ``previous``."""
        return self.hash == _hash(previous, self.seq, self.act)


def time_text(time: float) -> str:
    """A POSIX time as RFC 3339, in UTC, to the millisecond. A time that no calendar has is given as a number."""
    try:
        moment = datetime.fromtimestamp(time, UTC)
    except (ValueError, OverflowError, OSError):
        return repr(time)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def entry_of(row: Mapping[str, Any]) -> Entry:
    """The entry in ``Entry.row`` with its ``hash``. Raises ``ValueError`` if it is none."""
    try:
        act = Act(
            time=datetime.fromisoformat(row["time"]).timestamp(),
            who=row["who"],
            action=row["action"],
            target=row["target"],
            worker=row["worker"],
            result=row["result"],
            origin=row["from"],
            uid=row["uid"],
            request_id=row["request_id"],
            details=row["details"],
        )
        return Entry(int(row["seq"]), act, str(row["hash"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no entry of an audit: {error}") from None


def chained(head: Anchor, acts: Iterable[Act]) -> list[Entry]:
    """Entries for these acts, which continue a chain that ends with ``head``."""
    entries = []
    for act in acts:
        seq = head.seq + 1
        entries.append(Entry(seq, act, _hash(head.hash, seq, act)))
        head = entries[-1].anchor
    return entries


def _hash(previous: str, seq: int, act: Act) -> str:
    """The hash of an entry: that of the previous hash, a line feed, and ``compact(entry.row())``, put together here."""
    quoted = encode_basestring_ascii
    row = (
        f'{{"action":{quoted(act.action)},"details":{act.details},"from":{quoted(act.origin)},'
        f'"request_id":{quoted(act.request_id)},"result":{quoted(act.result)},"seq":{seq},'
        f'"target":{quoted(act.target)},"time":{quoted(time_text(act.time))},'
        f'"uid":{"null" if act.uid is None else act.uid},"who":{quoted(act.who)},"worker":{quoted(act.worker)}}}'
    )
    return hashlib.sha256(f"{previous}\n{row}".encode()).hexdigest()


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # somebody has changed it


# -- reading and checking


@frozen
class AuditFilter:
    """Entries of these principals and actions, in a period of POSIX times; ``None``: any."""

    who: str | None = None
    action: str | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, act: Act) -> bool:
        return (
            (self.who is None or act.who == self.who)
            and (self.action is None or act.action == self.action)
            and (self.since is None or act.time >= self.since)
            and (self.until is None or act.time < self.until)
        )


@frozen
class AuditPage:
    """Entries, newest first. ``before``: the number below which older entries are; ``None``: there are none."""

    entries: tuple[Entry, ...] = ()
    before: int | None = None


@frozen
class Verdict:
    """The result of ``verify``."""

    #: The number of entries, and the last.
    count: int = 0
    head: Anchor = Anchor()
    #: The number of the first entry that does not follow from the one before, and the reason; 0 and ``""``: all do.
    broken: int = 0
    why: str = ""
    #: Whether the anchor is in the chain; ``None`` if none was given.
    anchored: bool | None = None

    @property
    def intact(self) -> bool:
        """Whether the chain is whole, and has the anchor, if one was given."""
        return not self.broken and self.anchored is not False


def verify(entries: Iterable[Entry], anchor: Anchor | None = None) -> Verdict:
    """Check a chain whose entries are given newest first, as pages have them, down to the first entry."""
    verdict = Verdict(anchored=None if anchor is None else anchor == Anchor())
    later: Entry | None = None
    for entry in entries:
        verdict = evolve(verdict, head=entry.anchor) if later is None else _checked(verdict, later, entry.anchor)
        verdict = evolve(verdict, count=verdict.count + 1, anchored=verdict.anchored or _is_at(anchor, entry))
        later = entry
    return verdict if later is None else _checked(verdict, later, Anchor())


def _is_at(anchor: Anchor | None, entry: Entry) -> bool | None:
    return None if anchor is None else anchor == entry.anchor


def _checked(verdict: Verdict, entry: Entry, before: Anchor) -> Verdict:
    """The verdict, with what is wrong between an entry and the one before it. Later calls are about earlier entries."""
    if entry.seq <= before.seq:
        return evolve(verdict, broken=entry.seq, why=f"row {entry.seq} comes after row {before.seq}")
    if entry.seq != before.seq + 1:
        gone = f"row {before.seq + 1}" if entry.seq == before.seq + 2 else f"rows {before.seq + 1} to {entry.seq - 1}"
        return evolve(verdict, broken=before.seq + 1, why=f"{gone} missing")
    if not entry.follows(before.hash):
        after = f"row {before.seq}" if before.seq else "the beginning"
        return evolve(verdict, broken=entry.seq, why=f"row {entry.seq} does not follow from {after}")
    return verdict
