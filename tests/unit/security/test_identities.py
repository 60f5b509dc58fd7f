"""Identities: the names that state them, and the texts that don't."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler.errors import Invalid
from scheduler.security.identities import Identity, Role, identity_in, is_identity_name, parse, scheduler_dns_name

SCHEDULER = Identity("lab", Role.SCHEDULER)
BOX = Identity("lab", Role.WORKER, "box-7")


class RefusalTests(SynchronousTestCase):
    def test_no_label(self) -> None:
        """A name that is no lower-case DNS label is refused, and the refusal names it."""
        for text in ("", "a.b", "a_b", "Box", "-a", "a-", "a b", "a/b", "é", "a\n", "a" * 64, "*", "a%2fb"):
            for field, make in (
                ("cluster", lambda text=text: Identity(text, Role.SCHEDULER)),
                ("name", lambda text=text: Identity("lab", Role.WORKER, text)),
            ):
                error = self.assertRaises(Invalid, make)
                self.assertEqual(error.field, field)
                self.assertIn(repr(text), str(error))

    def test_named_scheduler(self) -> None:
        """The scheduler has no name."""
        self.assertIn("'box'", str(self.assertRaises(Invalid, Identity, "lab", Role.SCHEDULER, "box")))

    def test_malformed_uris(self) -> None:
        """A URI of our scheme that is not exactly one of the two forms states nothing, and is refused."""
        for uri in (
            "scheduler://",
            "scheduler://lab",
            "scheduler://lab/",
            "scheduler://lab/scheduler/",
            "scheduler://lab/scheduler/x",
            "scheduler://lab/worker",
            "scheduler://lab/worker/",
            "scheduler://lab/worker/a/b",
            "scheduler://lab/worker/a?role=scheduler",
            "scheduler://lab/worker/a#b",
            "scheduler://lab/worker/%61",
            "scheduler://lab/worker/Box",
            "scheduler://Lab/scheduler",
            "scheduler://user@lab/scheduler",
            "scheduler://lab:1/scheduler",
            "scheduler://lab/admin",
            "SCHEDULER://lab/scheduler",
        ):
            self.assertIn(uri, str(self.assertRaises(Invalid, parse, uri)))
            self.assertRaises(Invalid, identity_in, [uri])

    def test_two(self) -> None:
        """A certificate that states two identities states none."""
        error = self.assertRaises(Invalid, identity_in, [BOX.uri, "https://example.com/", SCHEDULER.uri])
        self.assertIn("2 identities", str(error))
        self.assertRaises(Invalid, identity_in, [BOX.uri, BOX.uri])


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Each identity has a URI and a DNS name."""
        self.assertEqual(SCHEDULER.uri, "scheduler://lab/scheduler")
        self.assertEqual(SCHEDULER.dns_name, "scheduler.lab.internal")
        self.assertEqual(scheduler_dns_name("lab"), SCHEDULER.dns_name)
        self.assertEqual(BOX.uri, "scheduler://lab/worker/box-7")
        self.assertEqual(BOX.dns_name, "box-7.worker.lab.internal")
        self.assertEqual(SCHEDULER.worker_dns_name("box-7"), BOX.dns_name)

    def test_parsed(self) -> None:
        """A URI is read as it is printed; other URIs state no identity."""
        for identity in (SCHEDULER, BOX, Identity("a" * 63, Role.WORKER, "scheduler")):
            self.assertEqual(parse(str(identity)), identity)
            self.assertEqual(identity_in(["https://example.com/worker/x", identity.uri]), identity)
        self.assertIsNone(identity_in([]))
        self.assertIsNone(identity_in(["https://lab/scheduler", "spiffe://lab/worker/a"]))

    def test_domain(self) -> None:
        """The names below the cluster's domain are for identities, whatever their case."""
        for name in ("scheduler.lab.internal", "X.WORKER.LAB.INTERNAL.", "lab.internal", "a.b.c.lab.internal"):
            self.assertTrue(is_identity_name("lab", name), name)
        for name in ("scheduler.other.internal", "notlab.internal", "internal", "lab", "lab.internal.example.com"):
            self.assertFalse(is_identity_name("lab", name), name)
