"""Notifies systemd, if systemd started this process with ``Type=notify``; see sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from twisted.logger import Logger

READY = "READY=1"
STOPPING = "STOPPING=1"

_log = Logger()


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send ``READY`` or ``STOPPING`` if systemd asked for it. A failure is only logged."""
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1)
            sender.sendto(state.encode(), address)
    except OSError as error:
        _log.warn("systemd can't be told {state}: {why}", state=state, why=str(error))
