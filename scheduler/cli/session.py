"""What all commands share: the scheduler that is meant, and a client of it."""

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

#: Of commands that are answered at once: seconds without a byte after which an answer counts as lost, and from then on
#: seconds for which it is asked for again.
ANSWER_TIMEOUT, ANSWER_PATIENCE = 15.0, 10.0

#: Seconds for which something must be tried again before that is told.
TROUBLE_TOLD_AFTER = 1.0


class Trouble:
    """Tells, once each time, that something is tried again; the ``on_trouble`` of a client."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._since: float | None = None
        self._told = False

    def __call__(self, why: str | None) -> None:
        """What failed, or that it does not any more."""
        if why is None:
            self._since, self._told = None, False
        elif self._since is None:
            self._since = self._clock()
        elif not self._told and self._clock() - self._since >= TROUBLE_TOLD_AFTER:
            say(f"schedctl: {printable(why)}; trying again")
            self._told = True


class Session:
    """One use of ``schedctl``. Nothing is read or opened before it is asked for, so ``--help`` costs nothing."""

    def __init__(self, url: str | None, token: str | None, context: str | None, environ: Mapping[str, str]) -> None:
        """Options as given; ``environ`` is the environment."""
        self._options = url, token, context
        self.environ = environ

    @cached_property
    def connection(self) -> Connection:
        """The scheduler that is meant; ``Failure``."""
        return choose(*self._options, self.environ)

    def client(self, waits: bool = False, **options: Any) -> scheduler.client.Client:
        """A client of it, to be closed; ``Failure`` for what can't be one.

        ``waits``: for a command that lasts; others give up sooner. ``options`` are those of ``Client``. Unless there is
        another ``on_trouble``, what is tried again for long is told.
        """
        where = self.connection
        if not waits:
            options = {"timeout": ANSWER_TIMEOUT, "patience": ANSWER_PATIENCE, **options}
        options.setdefault("on_trouble", Trouble())
        try:
            return scheduler.client.Client(where.url, token=where.token, ca_file=where.ca_file, **options)
        except ValueError as error:
            raise Failure(f"{where.source}: {error}", "Correct it; `schedctl --help` shows what decides.") from None
        except OSError as error:  # ssl.SSLError among them
            raise Failure(f"{where.source}: ca_file {where.ca_file} can't be used: {error}", "Correct it.") from None


pass_session = click.make_pass_decorator(Session)
