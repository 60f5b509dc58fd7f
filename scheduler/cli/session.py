"""What all commands share: the scheduler that is meant, and a client of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import click

import scheduler.client
from scheduler.cli.contexts import Connection, choose
from scheduler.cli.failures import Failure


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

    def client(self, **options: Any) -> scheduler.client.Client:
        """A client of it, to be closed; ``options`` are those of ``Client``. ``Failure`` for what can't be one."""
        where = self.connection
        try:
            return scheduler.client.Client(where.url, token=where.token, ca_file=where.ca_file, **options)
        except ValueError as error:
            raise Failure(f"{where.source}: {error}", "Correct it; `schedctl --help` shows what decides.") from None
        except OSError as error:  # ssl.SSLError among them
            raise Failure(f"{where.source}: ca_file {where.ca_file} can't be used: {error}", "Correct it.") from None


pass_session = click.make_pass_decorator(Session)
