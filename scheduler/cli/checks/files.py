"""Checks the owners and modes of a program's files, by the functions with which the program refuses its start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from scheduler.cli.checks.findings import Finding, error
from scheduler.daemon import files
from scheduler.daemon.config import ProcessConfig, SchedulerConfig, WorkerConfig

_MEND = "Correct owner and mode as it says; the program does not start like that"


def check_files(file: str, config: ProcessConfig) -> Iterator[Finding]:
    """Check the state folder, the token file in it, the private keys, and a worker's folder of scripts.

    The program's user is the owner of its state folder, or this user if there is no folder yet. Files that this user
    may not look at are passed over.
    """
    folder = config.state_dir
    try:
        uid = folder.stat().st_uid
    except OSError:
        uid = os.geteuid()
    checked: list[tuple[str, Callable[[Path, int], str], Path]] = [
        (f"state_dir {folder} ", files.state_dir_problem, folder),
        ("The token file ", files.token_file_problem, folder / files.ADMIN_TOKEN),
    ]
    if config.grpc_server.tls is not None:
        checked.append(("[grpc_server] key_file ", files.key_file_problem, config.grpc_server.tls.key_file))
    if isinstance(config, SchedulerConfig) and config.http_server.tls is not None:
        checked.append(("[http_server] key_file ", files.key_file_problem, config.http_server.tls.key_file))
    for subject, problem_of, path in checked:
        try:
            problem = problem_of(path, uid)
        except OSError:
            continue  # missing, which another check reports, or hidden
        if problem:
            yield error(file, f"{subject}{problem}", _MEND)
    if isinstance(config, WorkerConfig):
        yield from _check_scripts_dir(file, config.worker.scripts_dir, uid)


def _check_scripts_dir(file: str, folder: Path, uid: int) -> Iterator[Finding]:
    try:
        problem = files.writers_problem(os.path.realpath(folder), uid)
    except OSError:
        return
    if problem:
        yield error(
            file,
            f"[worker] scripts_dir {folder} is not safe, so its scripts are refused: {problem}",
            f"Let only root and {files.user(uid)} write it and the folders above: `namei -l {folder}` shows them",
        )
