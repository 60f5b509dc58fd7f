"""The common part of all commands: the chosen scheduler, and a client for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import click

import scheduler.client
from scheduler.cli.contexts import Connection, choose
from scheduler.cli.failures import Failure, say
from scheduler.cli.wording import printable

#: For commands with a quick answer: seconds without a byte after which an answer counts as lost, and seconds for which
#: the request is then repeated.
ANSWER_TIMEOUT, ANSWER_PATIENCE = 15.0, 10.0

#: Seconds for which a request must fail before the user is told.
TROUBLE_SHOWN_AFTER_SECONDS = 1.0


class Trouble:
    """Tells the user, once for each trouble, that a request is repeated. It is the ``on_trouble`` of a client."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._told = False

    def __call__(self, why: str | None) -> None:
        """Take a failure, as a clause, or ``None`` when an answer came."""
        if why is None:
            self._since, self._told = None, False
        elif self._since is None:
            self._since = self._clock()
        elif not self._told and self._clock() - self._since >= TROUBLE_SHOWN_AFTER_SECONDS:
            say(f"schedctl: {printable(why)}; trying again")
            self._told = True


class Session:
    """A run of ``schedctl``. Nothing is read or opened before it is needed, so ``--help`` is fast."""

    def __init__(
        self,
        url: str | None,
        token: str | None,
        context: str | None,
        ca_file: str | None,
        environ: Mapping[str, str],
    ) -> None:
        self._options = url, token, context, ca_file
        self.environ = environ

    @cached_property
    def connection(self) -> Connection:
        """The chosen scheduler. Raises ``Failure`` as ``contexts.choose`` does."""
        return choose(*self._options, self.environ)

    def client(self, waits: bool = False, **options: Any) -> scheduler.client.Client:
        """Make a client of the scheduler, for the caller to close. Raises ``Failure`` for unfit options.

        ``waits``: for a command that may last; other commands give up earlier. ``options`` are those of ``Client``.
        Unless they contain ``on_trouble``, the user is told about requests that are repeated for long.
        """
        where = self.connection
        if not waits:
            options = {"timeout": ANSWER_TIMEOUT, "patience": ANSWER_PATIENCE, **options}
        options.setdefault("on_trouble", Trouble())
        try:
            return scheduler.client.Client(where.url, token=where.token, ca_file=where.ca_file, **options)
        except ValueError as error:
            raise Failure(f"{where.source}: {error}", "Correct it; `schedctl --help` shows what decides.") from None
        except OSError as error:  # includes ssl.SSLError
            raise Failure(f"{where.source}: ca_file {where.ca_file} can't be used: {error}", "Correct it.") from None


pass_session = click.make_pass_decorator(Session)
