"""Checks of a registration, and the worker that it makes: values in, values out. [pure]"""

from __future__ import annotations

import re
import uuid

from scheduler.errors import Invalid
from scheduler.messages import Registration
from scheduler.model import is_id
from scheduler.names import NAME_PATTERN

#: Characters of the version of a worker, and of the boot id of its machine.
VERSION_MAX_CHARACTERS = BOOT_ID_MAX_CHARACTERS = 64

#: Labels that a worker may have.
LABELS_MAX = 64

#: Features that a worker may have; later versions know more than this one.
FEATURES_MAX = 64

#: The namespace of the ids that are made from folder ids (RFC 4122, version 5).
_WORKERS = uuid.UUID("d0f4b5e6-5a70-4f0e-9a7c-2f1b8f6c3a51")

_FEATURE = re.compile(r"[a-z0-9_]{1,64}")

#: Characters of the key of a label, and of its value.
_LABEL_MAX_CHARACTERS = 253


def id_of_folder(folder_id: str) -> str:
    """The id of the worker with that state folder; ``""`` where it has told no folder id."""
    return str(uuid.uuid5(_WORKERS, folder_id)) if folder_id else ""


def id_of_address(address: str) -> str:
    """The id of the core worker that registers at an address, which is all that it is known by."""
    return str(uuid.uuid5(_WORKERS, f"core worker at {address}"))  # no folder id has a space in it


def check(registration: Registration) -> None:
    """``Invalid`` for anything that may not become part of the registry; the address has a rule of its own."""
    if registration.worker_id and not is_id(registration.worker_id):
        raise Invalid("workerID", f"{registration.worker_id!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    if registration.folder_id and not is_id(registration.folder_id):
        raise Invalid("folderID", "is not 1 to 64 of A-Z a-z 0-9 _ -")  # a secret: the text does not show it
    if registration.nonce and not is_id(registration.nonce):
        raise Invalid("nonce", f"{registration.nonce!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    if registration.name and not NAME_PATTERN.fullmatch(registration.name):
        raise Invalid("name", f"{registration.name!r} is not a host name: letters, digits, '.', '_', '-'; at most 253")
    check_word("bootID", registration.boot_id, BOOT_ID_MAX_CHARACTERS)
    check_word("version", registration.version, VERSION_MAX_CHARACTERS)
    if len(registration.labels) > LABELS_MAX:
        raise Invalid("labels", f"{len(registration.labels)} of them; at most {LABELS_MAX} are allowed")
    for key, value in registration.labels.items():
        if not key or not (_is_label(key) and _is_label(value)):
            raise Invalid("labels", f"{key!r}: {value!r} is not printable text of at most 253 characters")
    if len(registration.features) > FEATURES_MAX:
        raise Invalid("features", f"{len(registration.features)} of them; at most {FEATURES_MAX} are allowed")
    for feature in registration.features:
        if not _FEATURE.fullmatch(feature):
            raise Invalid("features", f"{feature!r} is not 1 to 64 of a-z 0-9 _")


def _is_label(text: str) -> bool:
    return len(text) <= _LABEL_MAX_CHARACTERS and text.isprintable()


def check_word(field: str, text: str, most: int) -> None:
    """``Invalid`` for a text that is not printable, or longer than ``most`` characters."""
    if len(text) > most or not text.isprintable():
        raise Invalid(field, f"{text[:most]!r} is not printable text of at most {most} characters")
