"""What all commands share: the scheduler that is meant, and a client of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import click

import scheduler.client
from scheduler.cli.contexts import Connection, choose


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
        """A client of it, to be closed; ``options`` are those of ``Client``."""
        where = self.connection
        return scheduler.client.Client(where.url, token=where.token, ca_file=where.ca_file, **options)


pass_session = click.make_pass_decorator(Session)
