"""Both Python clients in one shape, so that one suite tests both: every method returns a Deferred."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from scheduler.client import Client, TwistedClient


class Blocking:
    """``Client``, called in threads of the reactor's pool."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.client = Client(url, **settings)

    def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]:
        return lambda *args, **kwargs: deferToThread(getattr(self.client, name), *args, **kwargs)

    def items(
        self, name: str, *args: Any, each: Callable[[Any], None] = lambda item: None, **kwargs: Any
    ) -> Deferred[list[Any]]:
        """All items of an iterator; ``each`` is called with every item, in the reactor's thread."""

        def collected() -> list[Any]:
            found = []
            for item in getattr(self.client, name)(*args, **kwargs):
                found.append(item)
                reactor.callFromThread(each, item)
            return found

        return deferToThread(collected)


class Twisted:
    """``TwistedClient``."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.client = TwistedClient(reactor, url, **settings)

    def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]:
        return getattr(self.client, name)

    def items(
        self, name: str, *args: Any, each: Callable[[Any], None] = lambda item: None, **kwargs: Any
    ) -> Deferred[list[Any]]:
        """All items of an iterator; ``each`` is called with every item."""

        async def collected() -> list[Any]:
            found = []
            async for item in getattr(self.client, name)(*args, **kwargs):
                found.append(item)
                each(item)
            return found

        return Deferred.fromCoroutine(collected())
