"""The rules about callers that no real connection can try out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Refused
from scheduler.rpc.callers import ANY_CALLER, Callers
from scheduler.security.identities import Role
from tests.integration.identities import SCHEDULER, Lab, worker_identity


class Context:
    """A call with that certificate."""

    def __init__(self, certificate: Path) -> None:
        self._certificate = certificate.read_bytes()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5"


class CallersTests(SynchronousTestCase):
    def test_expired_meanwhile(self) -> None:
        """A certificate that expires while its connection lasts is refused from then on."""
        lab = Lab(Path(self.mktemp()).absolute())
        now = datetime.now(UTC)
        callers = Callers(Role.WORKER, lab.pair(SCHEDULER), ANY_CALLER, lambda: now)
        context = Context(lab.pair(worker_identity("a")).crt_file)
        callers.check_thd(context)  # type: ignore[arg-type]
        now += timedelta(days=366)
        error = self.assertRaises(Refused, callers.check_thd, context)
        self.assertIn("the certificate has expired, on ", str(error))
