"""Logs: one line an event, its fields named, as text or JSON; and the request id that ties lines together."""

from __future__ import annotations

from contextvars import ContextVar

#: Id of the HTTP request on whose behalf the present code runs, ``""`` when there is none. It travels
#: in the gRPC metadata under ``METADATA_KEY`` and appears in the log lines of scheduler and worker.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

METADATA_KEY = "x-request-id"
