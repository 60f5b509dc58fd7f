"""Makes ``twistd scheduler`` and ``twistd worker`` known.

Every twistd of the machine imports this file, so it imports nothing of ours.
"""

from twisted.application.service import ServiceMaker

scheduler = ServiceMaker(
    "scheduler",
    "scheduler.tap",
    "One HTTP API in front of all your machines.",
    "scheduler",
)

worker = ServiceMaker(
    "worker",
    "scheduler.worker.tap",
    "Runs jobs on this machine for a scheduler.",
    "worker",
)
