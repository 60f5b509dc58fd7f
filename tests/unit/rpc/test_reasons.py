"""Reasons for texts that no server here produces on demand."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler.rpc.reasons import no_answer, reason

NOBODY = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:30000: "


def told(details: str, secure: bool = False) -> str:
    return reason(details, "10.0.0.7", secure, 5.0)


class ReasonTests(SynchronousTestCase):
    def test_system(self) -> None:
        """A system error is shown by its short text, however gRPC wraps it."""
        for said, expected in (
            ("Failed to connect to remote host: getsockopt(SO_ERROR): No route to host", "no route to host"),
            ("connect failed: addr: ipv4:10.0.0.7:30000 error: Network is unreachable", "network is unreachable"),
            ("Failed to connect to remote host: getsockopt(SO_ERROR): Connection timed out", "connection timed out"),
            ("sendmsg: Broken pipe (32)", "connection reset"),
        ):
            self.assertEqual(told(NOBODY + said), expected)
            self.assertEqual(told(said), expected)

    def test_too_late(self) -> None:
        """A connection that timed out appears in several forms, depending on the first timer."""
        for said in (
            "Failed to connect to remote host: connect() timed out",
            "tcp handshaker shutdown",
            "connection attempt timed out before receiving SETTINGS frame",
            "Handshake read failed (Endpoint closing)",
        ):
            self.assertEqual(told(NOBODY + said), "no answer within 5 s")

    def test_host(self) -> None:
        """The reason for a certificate without the expected host or name tells that host or name."""
        said = (
            NOBODY + "Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed."
        )
        for verified in ("10.0.0.7", "::1", "box.worker.lab.internal"):
            self.assertEqual(reason(said, verified, True, 5.0), f"no subject alternative name for {verified}")

    def test_closed(self) -> None:
        """The reason for a lost connection does not mention TLS."""
        for secure in (False, True):
            self.assertEqual(told("Socket closed", secure), "connection closed")
            self.assertNotEqual(told(NOBODY + "Socket closed", secure), "connection closed")

    def test_certificate(self) -> None:
        """Any other fault of a certificate is passed on."""
        said = (
            "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
            "CERTIFICATE_VERIFY_FAILED: unsupported certificate purpose: OK"
        )
        self.assertEqual(told(NOBODY + said, True), "certificate not accepted: unsupported certificate purpose")

    def test_unknown(self) -> None:
        """An unknown text is passed on without gRPC's prefix, printable and bounded."""
        self.assertEqual(told(NOBODY + "the moon is full"), "the moon is full")
        self.assertEqual(told("the moon\nis full"), "the moon\ufffdis full")
        self.assertEqual(told(NOBODY + "x" * 1000), "x" * 200)
        self.assertEqual(told(""), "")

    def test_no_answer(self) -> None:
        """Seconds are rounded for reading."""
        self.assertEqual(
            [no_answer(seconds) for seconds in (5.0, 0.5, 4.98)],
            ["no answer within 5 s", "no answer within 0.5 s", "no answer within 5 s"],
        )
