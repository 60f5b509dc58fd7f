"""The ids that workers get from their folder id or address. Pure functions."""

from __future__ import annotations

import uuid

#: The namespace of the ids that are made from folder ids (RFC 4122, version 5).
_WORKERS = uuid.UUID("d0f4b5e6-5a70-4f0e-9a7c-2f1b8f6c3a51")


def id_of_folder(folder_id: str) -> str:
    """The id of the worker with that state folder; ``""`` if it gave no folder id."""
    return str(uuid.uuid5(_WORKERS, folder_id)) if folder_id else ""


def id_of_address(address: str) -> str:
    """The id of the core worker that registers at an address; nothing else identifies it."""
    return str(uuid.uuid5(_WORKERS, f"core worker at {address}"))  # no folder id has a space in it
