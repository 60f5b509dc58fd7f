"""Scheduler and worker at link-local addresses, which have a zone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.client import Client
from tests.system.conftest import Daemon, wait_until

#: The scope of a link-local address in the kernel's table.
_LINK = "20"


def link_local() -> str:
    """An address of this machine with its zone, ``""`` if it has none."""
    table = Path("/proc/net/if_inet6")
    rows = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    digits = [(row[0], row[5]) for row in rows if row[3] == _LINK]
    if not digits:
        return ""
    address, zone = min(digits, key=lambda found: found[1])
    return ":".join(address[at : at + 4] for at in range(0, 32, 4)) + f"%{zone}"


@pytest.mark.skipif(not link_local(), reason="this machine has no link-local IPv6 address")
@pytest.mark.parametrize("listens", ["the address", "everywhere"])
def test_zone(daemons: Callable[..., Daemon], listens: str) -> None:
    """An address with a zone works for listening, dialling, registering and for clients."""
    here = link_local()
    insecure = "allow_insecure = true\n"
    scheduler = daemons(
        "scheduler", f'[grpc_server]\naddr = "[{here}]:0"\n{insecure}[http_server]\naddr = "[{here}]:0"\n{insecure}'
    )
    scheduler.start()
    own = f"[{here}]:0" if listens == "the address" else "[::]:0"
    worker = daemons(
        "worker",
        f'[grpc_server]\naddr = "{own}"\n{insecure}[scheduler]\naddr = "{scheduler.endpoints["grpc"]}"\n'
        f'[worker]\nname = "w1"\n',
    )
    worker.start()
    url = f"http://{scheduler.endpoints['http'].replace('%', '%25')}"
    with Client(url) as client:
        wait_until(lambda: [each.state for each in client.workers()] == ["online"], "the worker is online")
        (known,) = client.workers()
        assert known.address.endswith(f"%{here.partition('%')[2]}]:{worker.endpoints['grpc'].rpartition(':')[2]}")
        result = client.run(["echo", "hi"], worker="w1")
        assert (result.exit_code, result.stdout) == (0, b"hi\n")
    if shutil.which("curl") is not None:
        done = subprocess.run(
            ["curl", "-gsS", f"{url}/healthz"], capture_output=True, text=True, timeout=30, check=True
        )
        assert "true" in done.stdout
