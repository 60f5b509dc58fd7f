"""Access of this machine's users: root and the process's own user have all of it, others what they are given.

Whom a connection belongs to is found by ``socket_owners``, or by the system itself for a Unix socket.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from twisted.logger import Logger

from scheduler.daemon.users import User
from scheduler.errors import Unauthenticated
from scheduler.security.principals import Principal, Scope

#: Seconds for which the refusals of one user are one line of the log.
REFUSAL_INTERVAL_SECONDS = 60.0

#: Users whose refusals are logged in that time. One user may own thousands of user ids.
MAX_LOGGED_USERS = 20

_log = Logger()


class RefusalLog:
    """Logs which users were refused, and how they can be let in. Any thread may use it."""

    def __init__(self, clock: Callable[[], float], server: str, key: str) -> None:
        """``clock`` gives seconds; ``server`` is the refusing server's name, ``key`` the setting that lets users in."""
        self._clock = clock
        self._server = server
        self._key = key
        self._logged: dict[int, float] = {}

    def note(self, uid: int) -> None:
        """Log that the user was refused, unless that was logged within ``REFUSAL_INTERVAL_SECONDS``."""
        now = self._clock()
        logged = {user: at for user, at in self._logged.items() if now - at < REFUSAL_INTERVAL_SECONDS}
        if uid in logged or len(logged) >= MAX_LOGGED_USERS:
            return
        self._logged = {**logged, uid: now}
        _log.warn(
            "{server} refuses the user {user} (uid {uid}) of this machine; {key} lets users in",
            server=self._server,
            user=User.of(uid).name,
            uid=uid,
            key=self._key,
        )


class LocalUsers:
    """The users who need no token for the HTTP API."""

    def __init__(
        self, scopes: Mapping[User, str], clock: Callable[[], float], own_uid: Callable[[], int] = os.geteuid
    ) -> None:
        """``scopes``: users other than root, and the scope of each in lower case."""
        self._principals = {user.uid: _principal(user, Scope[scope.upper()]) for user, scope in scopes.items()}
        self._administrators: dict[int, Principal] = {}
        self._own_uid = own_uid
        self._refusals = RefusalLog(clock, "HTTP", "[http_server] local_users")

    def principal(self, uid: int) -> Principal:
        """The principal of a user. Raises ``Unauthenticated`` for a user who needs a token."""
        if uid in self._administrators:
            return self._administrators[uid]
        if uid in (0, self._own_uid()):
            return self._administrators.setdefault(uid, _principal(User.of(uid), Scope.ADMIN))
        if uid in self._principals:
            return self._principals[uid]
        raise Unauthenticated(
            f"user {uid} of this machine has no access. Root has, so `sudo` in front of the command helps; so does a "
            "token (`Authorization: Bearer TOKEN`), or the user's name in local_users of [http_server]"
        )

    def refused(self, uid: int) -> None:
        """Log that a request of the user was refused."""
        self._refusals.note(uid)


def _principal(user: User, scope: Scope) -> Principal:
    return Principal("local", user.name, scope)
