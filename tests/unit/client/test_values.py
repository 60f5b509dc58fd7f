"""Values from JSON, addresses, and the import of the package."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import UTC, datetime
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

import scheduler.client
from scheduler import __version__
from scheduler.client import Client, ClientError, Disk, Job, TwistedClient, Usage, WaitingFor, Worker
from scheduler.client.address import body, read_target
from scheduler.client.exchange import Request

JOB = {
    "id": "j1",
    "state": "failed",
    "args": ["a"],
    "labels": {"x": "y"},
    "created_at": "2024-05-01T12:00:00.5Z",
    "started_at": None,
    "exit_code": 3,
    "usage": {"max_rss": 7, "cpu_seconds": 0.5, "more": 1},
    "waiting_for": {"why": "backoff", "detail": "d", "place": 2},
    "leftover": [7],
    "news": {"of": "a later version"},
}


class ValueTests(SynchronousTestCase):
    def test_job(self) -> None:
        """Known fields are attributes in Python types; the rest is in ``data``."""
        job = Job.from_json(JOB)
        self.assertEqual((job.id, job.state, job.exit_code, job.args, job.leftover), ("j1", "failed", 3, ("a",), (7,)))
        self.assertEqual(job.created_at, datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC))
        self.assertEqual((job.usage, job.waiting_for), (Usage(7, 0.5), WaitingFor("backoff", "d", 2)))
        self.assertEqual((job.started_at, job.stdout_bytes, job.data["news"]), (None, None, JOB["news"]))
        self.assertTrue(job.final)
        self.assertFalse(job.succeeded)

    def test_tolerant(self) -> None:
        """A scheduler of another version may send less, and unknown states are not final."""
        job = Job.from_json({"id": "j", "state": "dreaming", "usage": {}, "created_at": "?", "args": None, "env": None})
        self.assertEqual((job.usage, job.created_at, job.args, job.env, job.final), (None, None, (), {}, False))
        worker = Worker.from_json({"id": "w", "name": "n", "state": "online", "disk": {"size": 1}, "slots": None})
        self.assertEqual((worker.disk, worker.slots, worker.draining), (None, None, False))
        disk = {"size": 4, "free": 3, "inodes": 2, "inodes_free": 1}
        self.assertEqual(Worker.from_json({**worker.data, "disk": disk}).disk, Disk(4, 3, 2, 1))

    def test_no_value(self) -> None:
        """JSON that is no job or worker is an error of the client."""
        for data in (None, [], {}, {"id": "j"}, {"id": 1, "state": "running"}):
            self.assertRaises(ClientError, Job.from_json, data)
            self.assertRaises(ClientError, Worker.from_json, data)


class AddressTests(SynchronousTestCase):
    def test_urls(self) -> None:
        """A base URL gets its defaults."""
        request = Request("GET", "/v1/jobs", (("label", "a=b c"), ("state", "é")))
        path = "/v1/jobs?label=a%3Db%20c&state=%C3%A9"
        for url, base, prefix in (
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000", ""),
            ("https://box/", "https://box:443", ""),
            ("http://[::1]:80/at/", "http://[::1]:80", "/at"),
            ("http://[fe80::1%25eth0]", "http://[fe80::1%25eth0]:80", ""),
            ("http://[fe80::1%eth0]", "http://[fe80::1%25eth0]:80", ""),
        ):
            target = read_target(url, None)
            self.assertEqual(target.host, urlsplit(base).hostname.replace("%25", "%"))  # type: ignore[union-attr]
            self.assertEqual((target.base, target.path(request)), (base, prefix + path))

    def test_refused(self) -> None:
        """An invalid URL is refused, and so is a token that would be another header."""
        for url in ("", "box:3000", "ftp://box", "http://", "http://me:secret@box", "http://box?x=1", "http://box#x"):
            self.assertRaises(ValueError, read_target, url, None)
        self.assertRaises(ValueError, read_target, "http://box:x", None)
        for token in ("", "a b", "a\r\nX: y", "é"):
            self.assertRaises(ValueError, read_target, "http://box", token)

    def test_token(self) -> None:
        """The token is sent as a bearer token, and never shown."""
        target = read_target("http://box", "secret")
        headers = target.headers(Request("POST", "/", body={"a": "é\udc80"}, headers={"Accept": "x"}))
        self.assertEqual(headers["Authorization"], "Bearer secret")
        self.assertEqual((headers["Accept"], headers["Content-Type"]), ("x", "application/json"))
        self.assertEqual(headers["User-Agent"], f"scheduler-client/{__version__}")
        self.assertNotIn("secret", repr(target))
        self.assertEqual(body(Request("POST", "/", body={"a": "\udc80"})), b'{"a": "\\udc80"}')


class PackageTests(SynchronousTestCase):
    def test_lazy(self) -> None:
        """Importing the package loads none of its modules; each client loads only what it needs."""
        heavy = "{'attrs', 'urllib3', 'twisted', 'treq', 'grpc', 'klein', 'sqlalchemy'}"
        for use, loaded in (
            ("", set()),
            ("scheduler.client.Job", {"attrs"}),
            ("scheduler.client.Client", {"attrs", "urllib3"}),
            ("scheduler.client.TwistedClient", {"attrs", "twisted", "treq"}),
        ):
            code = f"import sys, scheduler.client\n{use}\nprint(*sorted({heavy} & set(sys.modules)))"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            self.assertEqual(set(done.stdout.split()), loaded, use)

    def test_names(self) -> None:
        """Every public name can be imported, and no other."""
        for name in scheduler.client.__all__:
            self.assertIsNotNone(getattr(scheduler.client, name))
            self.assertIn(name, dir(scheduler.client))
        self.assertRaises(AttributeError, getattr, scheduler.client, "nothing")

    def test_same_shape(self) -> None:
        """Both clients have the same methods and arguments, and those of ``Client`` are documented."""

        def shape(cls: type) -> dict[str, list[str]]:
            return {
                name: [str(each).partition(":")[0] for each in inspect.signature(method).parameters.values()]
                for name, method in vars(cls).items()
                if not name.startswith("_")
            }

        self.assertEqual(shape(Client), shape(TwistedClient))
        for name in shape(Client):
            self.assertTrue(getattr(Client, name).__doc__, name)
