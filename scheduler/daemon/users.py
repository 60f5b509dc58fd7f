"""The users of this machine, as a configuration names them."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from scheduler.daemon.tomlfile import Table, list_of, one_of
from scheduler.reading import Unfit

#: No user has this id or a greater one: the system calls take 2**32 - 1 for "unchanged".
_USERS_END = 2**32 - 1

#: The rights that a user can be given.
_scope = one_of("read", "run", "admin")


@frozen
class User:
    """A user of this machine."""

    uid: int
    #: The name, or the uid as a text if it has none.
    name: str

    @staticmethod
    def of(uid: int) -> User:
        """The user with this id, whether it has a name or not."""
        try:
            return User(uid, pwd.getpwuid(uid).pw_name)
        except (KeyError, OverflowError):
            return User(uid, str(uid))

    @staticmethod
    def find(text: str) -> User | None:
        """The user of this name or of this id in decimal; ``None`` if the machine has none of this name."""
        if text.isascii() and text.isdecimal():
            return User.of(int(text)) if int(text) < _USERS_END else None
        try:
            return User(pwd.getpwnam(text).pw_uid, text)
        except (KeyError, ValueError):
            return None


def read_scopes(table: Table) -> dict[User, str]:
    """Read ``local_users`` of a table: users, and the scope of each. Raises ``ConfigError`` for an unknown user."""
    given = table.table("local_users")
    scopes: dict[User, str] = {}
    for key in given:
        scope, user = given.get(key, _scope), User.find(key)
        if user is None:
            raise given.error(key, scope, "this machine has no such user")
        if user.uid == 0 and scope != "admin":
            raise given.error(key, scope, "root has the scope admin in any case")
        if any(user.uid == other.uid for other in scopes):
            raise given.error(key, scope, "the user is named twice")
        scopes[user] = scope
    return scopes


def read_users(table: Table, default: Sequence[str]) -> tuple[tuple[User, ...], tuple[str, ...]]:
    """Read ``local_users`` of a table, a list.

    Returns the users, and the names that the machine does not know, without those of ``default``: a sample may name
    users of units that are not here. Raises ``ConfigError`` for a mistake.
    """
    names = table.get("local_users", list_of(_name), list(default))
    found = {name: User.find(name) for name in names}
    unknown = tuple(name for name, user in found.items() if user is None and name not in default)
    return tuple(user for user in found.values() if user is not None), unknown


def _name(value: Any) -> str:
    """Check the name or the id of a user."""
    name = str(value) if type(value) is int else value
    if not isinstance(name, str) or not 1 <= len(name) <= 256 or not name.isprintable() or name.startswith("-"):
        raise Unfit("must be names of users, or their ids")
    return name
