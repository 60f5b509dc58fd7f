"""Checks the data of a registration: by the scheduler, and by each worker when it starts."""

from __future__ import annotations

import re

from scheduler.errors import Invalid
from scheduler.messages import Registration
from scheduler.names import LABEL_ALLOWED, LABELS_MAX, NAME_PATTERN, is_id, label_problem

#: Characters of a worker's version, and of its machine's boot id.
VERSION_MAX_CHARACTERS = BOOT_ID_MAX_CHARACTERS = 64

#: Features that a worker may have. Workers of later versions may have more than this version knows.
FEATURES_MAX = 64

_FEATURE = re.compile(r"[a-z0-9_]{1,64}")


def check(registration: Registration) -> None:
    """Raise ``Invalid`` for data that no scheduler accepts. The address is checked elsewhere (``DialRule``)."""
    if registration.worker_id and not is_id(registration.worker_id):
        raise Invalid("workerID", f"{registration.worker_id!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    if registration.folder_id and not is_id(registration.folder_id):
        raise Invalid("folderID", "is not 1 to 64 of A-Z a-z 0-9 _ -")  # a secret, so it is not shown
    if registration.nonce and not is_id(registration.nonce):
        raise Invalid("nonce", f"{registration.nonce!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    if registration.name and not NAME_PATTERN.fullmatch(registration.name):
        raise Invalid("name", f"{registration.name!r} is not a host name: letters, digits, '.', '_', '-'; at most 253")
    check_word("bootID", registration.boot_id, BOOT_ID_MAX_CHARACTERS)
    check_word("version", registration.version, VERSION_MAX_CHARACTERS)
    if len(registration.labels) > LABELS_MAX:
        raise Invalid("labels", f"{len(registration.labels)} of them; at most {LABELS_MAX} are allowed")
    for key, value in registration.labels.items():
        if not key or label_problem(key) or label_problem(value):
            raise Invalid("labels", f"{key!r}: {value!r} is not {LABEL_ALLOWED}")
    if len(registration.features) > FEATURES_MAX:
        raise Invalid("features", f"{len(registration.features)} of them; at most {FEATURES_MAX} are allowed")
    for feature in registration.features:
        if not _FEATURE.fullmatch(feature):
            raise Invalid("features", f"{feature!r} is not 1 to 64 of a-z 0-9 _")


def check_word(field: str, text: str, most: int) -> None:
    """Raise ``Invalid`` for a text that is not printable, or longer than ``most`` characters."""
    if len(text) > most or not text.isprintable():
        raise Invalid(field, f"{text[:most]!r} is not printable text of at most {most} characters")
