"""The first token: whenever a start finds no valid token, one for administrators is made and written to a file.

Theory of operation. The file must never have a token that does not work, and no token may be made that nobody can
read. So the text is written to a draft first, which shows that there is room for it. Then the token is saved. Then the
draft gets its name. A start that finds a draft after a crash in between completes this if the draft's token is valid.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from scheduler.daemon.files import ADMIN_TOKEN
from scheduler.errors import Unauthenticated
from scheduler.security.audit import Sender
from scheduler.security.audited_tokens import AuditedTokens
from scheduler.security.interfaces import NewToken
from scheduler.security.principals import Principal, Scope
from scheduler.security.tokens import Tokens
from scheduler.security.trail import Audit

ADMIN = NewToken("admin", Scope.ADMIN)

#: The principal in ``created_by`` of the first token.
SCHEDULER = Principal("scheduler", "", Scope.ADMIN)

#: Bytes of a file that are read; a token is shorter.
_MAX_BYTES = 200

#: Flags for reading the draft: no link is followed, and a FIFO in its place is not waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_log = Logger()


class UnwritableToken(Exception):
    """The file of the first token can't be written; ``str()`` says which, and why."""


class FirstToken:
    """Makes the first token."""

    def __init__(self, tokens: Tokens, folder: Path, audit: Audit | None = None) -> None:
        """``audit`` records that the token is made; ``None``: nothing does, in a test."""
        self._tokens = tokens
        self._create = tokens.create if audit is None else AuditedTokens(tokens, audit, Sender(str(SCHEDULER))).create
        self._file = folder / ADMIN_TOKEN
        self._draft = folder / f"{ADMIN_TOKEN}.tmp"

    def make(self) -> Deferred[None]:
        """Make the token if none is valid. Fails with ``UnwritableToken`` or ``StoreFailed``, and leaves none then."""
        return Deferred.fromCoroutine(self._make())

    async def _make(self) -> None:
        if self._tokens.valid:
            self._complete()
            return
        try:
            token, _ = await self._create(SCHEDULER, ADMIN, self._write_draft)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._draft.replace(self._file)
        except OSError as error:
            await self._tokens.revoke(SCHEDULER, token.id)
            raise self._unwritable(error) from error
        _log.info("there was no valid token: a token for administrators is in {file}", file=str(self._file))

    def _write_draft(self, text: str) -> None:
        self._draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._draft, flags, 0o600), "w", encoding="utf-8") as draft:
            draft.write(f"{text}\n")
            draft.flush()
            os.fsync(draft.fileno())

    def _complete(self) -> None:
        """Give a draft that a crash left behind its name, if its token is valid; else remove it."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            with open(os.open(self._draft, _READ), encoding="utf-8") as draft:
                text = draft.read(_MAX_BYTES)
            try:
                self._tokens.principal(text.strip())
            except Unauthenticated:
                self._draft.unlink(missing_ok=True)
            else:
                self._draft.replace(self._file)

    def _unwritable(self, error: OSError) -> UnwritableToken:
        return UnwritableToken(f"the token for administrators can't be written to {self._file}: {error.strerror}")
