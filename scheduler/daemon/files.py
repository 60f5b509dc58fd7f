"""Checks of the owners and modes of files, and the steps that root takes for another user.

Theory of operation. twistd started by root with ``--uid`` becomes that user late: it has root's rights while it makes
the state folder, takes its lock, and opens database and log. The user may write in these places, and may have put a
link where root would create or open a file. So these steps are taken ``as_user``, with that user's rights: the kernel
then refuses whatever the user may not do. Only a folder in a place where root alone may write is made by root.

The checks answer a sentence for the person who has to mend it, ``""`` if all is well. They judge owner and mode, and
count a group as others, but for root's and the user's own private group (a group of the user's name without members).
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

#: In the state folder of a scheduler.
ADMIN_TOKEN = "admin.token"  # noqa: S105 - a file's name

_GROUP_OR_OTHERS = 0o077


@contextlib.contextmanager
def as_user(uid: int | None, gid: int | None) -> Iterator[None]:
    """Act with the rights of the user that this process will become. Without root's rights this changes nothing.

    Meant for the time before threads exist. Raises ``OSError`` if the ids can't be set.
    """
    if os.geteuid() != 0 or (not uid and not gid):
        yield
        return
    old_groups, old_gid = os.getgroups(), os.getegid()
    try:
        _take_groups(uid, gid)
        if uid is not None:
            os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(old_gid)
        os.setgroups(old_groups)


def _take_groups(uid: int | None, gid: int | None) -> None:
    """Take the groups that twistd will take."""
    if uid is not None:
        try:
            owner = pwd.getpwuid(uid)
        except KeyError:  # a user without a name is in no other group
            os.setgroups([] if gid is None else [gid])
        else:
            gid = owner.pw_gid if gid is None else gid
            os.initgroups(owner.pw_name, gid)
    if gid is not None:
        os.setegid(gid)


def make_folder(path: Path, uid: int | None, gid: int | None) -> None:
    """Make a folder and those above it that are missing, all for that user alone. It may exist.

    Raises ``OSError`` if that is not possible, also where root would have to make it in a place that others may write.
    """
    try:
        with as_user(uid, gid):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return
    except PermissionError:
        if os.geteuid() != 0 or path.exists():
            raise
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    place = missing[-1].parent
    if problem := way_problem(str(place)):
        raise PermissionError(errno.EACCES, f"root makes no folder in {place} for another user: {problem}")
    for folder in reversed(missing):
        folder.mkdir(mode=0o700)
    for folder in missing:  # from the innermost: the user can't replace what is in a folder of root's
        os.chown(folder, -1 if uid is None else uid, -1 if gid is None else gid, follow_symlinks=False)


def state_dir_problem(path: Path, uid: int) -> str:
    """Explain why the process of this user may not keep its state in the folder. Raises ``OSError``."""
    found = path.stat()
    if found.st_uid != uid:
        return f"belongs to {user(found.st_uid)}, not to {user(uid)}, as whom the process runs: {_chown(uid, path)}"
    if found.st_mode & _GROUP_OR_OTHERS:
        return f"is open to others (mode {_mode(found)}): chmod 700 {path}"
    return ""


def token_file_problem(path: Path, uid: int) -> str:
    """Explain why the file can't hold a secret of this user; ``""`` also if there is none. Raises ``OSError``."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return f"{path} must be a file of its own, and no link: remove it"
    if found.st_uid != uid:
        return f"{path} belongs to {user(found.st_uid)}, not to {user(uid)}: {_chown(uid, path)}"
    if found.st_mode & 0o177:
        return f"{path} has the mode {_mode(found)}, and must have 0600: chmod 600 {path}"
    return ""


def key_file_problem(path: Path, uid: int) -> str:
    """Explain why the file can't hold a private key for a process of this user. Raises ``OSError``.

    It may belong to the user with mode 0600, or to root with mode 0640 for the user's group, or have stricter modes.
    """
    found = path.stat()
    allowed = {uid: 0o600, 0: 0o640}.get(found.st_uid)
    if allowed is None:
        return f"{path} belongs to {user(found.st_uid)}; it must belong to {user(uid)} or root: {_chown(uid, path)}"
    if stat.S_IMODE(found.st_mode) & ~allowed:
        belongs = f"{path} belongs to {user(found.st_uid)} and has the mode {_mode(found)}"
        return f"{belongs}; it may have {allowed:04o} at most: chmod {allowed:o} {path}"
    return ""


def writers_problem(path: str, uid: int) -> str:
    """Explain which part of an absolute path another user than root and ``uid`` may change, links included.

    In a sticky folder others can add files, but not replace one of these users, so such a folder is no problem. Raises
    ``OSError``.
    """
    os.stat(path)  # which finds a loop of links
    part, found = "/", os.lstat("/")
    problem = _writers_of(part, found, uid)
    for name in filter(None, path.split("/")):
        if problem:
            break
        others_add = found.st_mode & stat.S_ISVTX
        part = os.path.normpath(os.path.join(part, name))
        found = os.lstat(part)
        if not stat.S_ISLNK(found.st_mode):
            problem = _writers_of(part, found, uid)
            continue
        belongs = _writers_of(part, found, uid) if others_add else ""
        problem = belongs or writers_problem(os.path.join(os.path.dirname(part), os.readlink(part)), uid)
        part = os.path.realpath(part)
        found = os.lstat(part)
    return problem


def way_problem(path: str) -> str:
    """Explain which part of the way to a folder another user than root may change, links included.

    Root may create files in a folder with ``""``. Raises ``OSError``.
    """
    if problem := writers_problem(os.path.join(os.getcwd(), path), 0):
        return problem
    sticky = os.stat(path).st_mode & stat.S_ISVTX
    return f"all users may add files to {os.path.realpath(path)}" if sticky else ""


def _writers_of(path: str, found: os.stat_result, uid: int) -> str:
    if found.st_uid not in (0, uid):
        return f"{path} belongs to {user(found.st_uid)}"
    if stat.S_ISLNK(found.st_mode) or stat.S_ISCHR(found.st_mode):  # nobody changes where they lead by writing
        return ""
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return f"all users may write {path} (mode {_mode(found)})"
    if found.st_mode & stat.S_IWGRP and (_has_acl(path) or not _is_private(found.st_gid, uid)):
        return f"others may write {path} (mode {_mode(found)}, group {_group(found.st_gid)})"
    return ""


def _is_private(gid: int, uid: int) -> bool:
    """Whether no other user than root and ``uid`` is in the group."""
    if gid == 0:
        return True
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return owner.pw_gid == gid and owner.pw_name == group.gr_name and not set(group.gr_mem) - {owner.pw_name, "root"}


def _has_acl(path: str) -> bool:
    """Whether the group's bits of the mode stand for a list that may name other users."""
    try:
        return bool(os.getxattr(path, "system.posix_acl_access", follow_symlinks=False))
    except OSError:
        return False


def user(uid: int) -> str:
    """Answer the name of a user, or the id if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"


def _chown(uid: int, path: Path) -> str:
    return f"chown {user(uid)} {path}"
