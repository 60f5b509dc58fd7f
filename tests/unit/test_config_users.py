"""Users of this machine in the configuration."""

import pwd

from scheduler.daemon.config import load_scheduler, load_worker
from scheduler.daemon.users import User
from tests.unit.config_case import ConfigCase

NOBODY = pwd.getpwnam("nobody")

#: An id without a name.
NAMELESS = 4_000_000_001


def known(*names: str) -> tuple[User, ...]:
    """The users of these names, without those whom this machine does not know."""
    return tuple(user for user in map(User.find, names) if user is not None)


class HttpUsersTests(ConfigCase):
    def complaint_about(self, users: str) -> str:
        return self.complaint(load_scheduler, f"[http_server]\nlocal_users = {users}\n")

    def test_unknown_user(self) -> None:
        """An unknown user is refused, by name."""
        self.assertEqual(
            self.complaint_about('{no-such-user = "run"}'),
            '[http_server.local_users] no-such-user = "run": this machine has no such user',
        )
        self.assertIn("4294967295", self.complaint_about('{4294967295 = "run"}'))

    def test_unknown_scope(self) -> None:
        self.assertEqual(
            self.complaint_about('{nobody = "root"}'),
            '[http_server.local_users] nobody = "root": must be "read", "run" or "admin"',
        )
        self.assertIn("nobody", self.complaint_about("{nobody = 1}"))

    def test_no_table(self) -> None:
        self.assertIn("must be a table", self.complaint_about('["nobody"]'))

    def test_root(self) -> None:
        """Root's rights can't be cut, and a file that tries it is refused."""
        self.assertIn("root has the scope admin", self.complaint_about('{root = "read"}'))
        self.assertIn("root has the scope admin", self.complaint_about('{0 = "run"}'))

    def test_twice(self) -> None:
        """A user who is named by name and by id is refused."""
        text = self.complaint_about(f'{{nobody = "run", {NOBODY.pw_uid} = "admin"}}')
        self.assertIn("named twice", text)

    def test_users(self) -> None:
        """Users are named by name or by id, whether the id has a name or not."""
        config = self.scheduler(f'[http_server.local_users]\nnobody = "run"\n{NAMELESS} = "admin"\nroot = "admin"\n')
        self.assertEqual(
            dict(config.http_server.local_users),
            {User(NOBODY.pw_uid, "nobody"): "run", User(NAMELESS, str(NAMELESS)): "admin", User(0, "root"): "admin"},
        )
        by_id = self.scheduler(f'[http_server]\nlocal_users = {{{NOBODY.pw_uid} = "read"}}')
        self.assertEqual(dict(by_id.http_server.local_users), {User(NOBODY.pw_uid, "nobody"): "read"})

    def test_default(self) -> None:
        config = self.scheduler("")
        self.assertEqual((dict(config.http_server.local_users), config.http_server.unix), ({}, None))


class GrpcUsersTests(ConfigCase):
    def test_no_names(self) -> None:
        for users in ('""', '[""]', "[true]", '["a\\nb"]', "[1.5]", "[-1]", '{nobody = "run"}'):
            text = self.complaint(load_worker, f"[grpc_server]\nlocal_users = {users}\n")
            self.assertIn("[grpc_server] local_users", text)

    def test_unknown_user(self) -> None:
        """An unknown user is no mistake here, as samples name users of units, and is remembered to be logged."""
        config = self.worker('[grpc_server]\nlocal_users = ["nobody", "no-such-user"]')
        self.assertEqual(config.grpc_server.local_users, (User(NOBODY.pw_uid, "nobody"),))
        self.assertEqual(config.grpc_server.unknown_users, ("no-such-user",))

    def test_default(self) -> None:
        """By default the units of a scheduler and a worker on one machine find each other."""
        scheduler, worker = self.scheduler(""), self.worker("")
        self.assertEqual(scheduler.grpc_server.local_users, known("scheduler-worker"))
        self.assertEqual(worker.grpc_server.local_users, known("scheduler"))
        named = self.scheduler('[grpc_server]\nlocal_users = ["scheduler-worker"]')
        for config in (scheduler, worker, named):
            self.assertEqual(config.grpc_server.unknown_users, ())

    def test_ids(self) -> None:
        config = self.worker(f"[grpc_server]\nlocal_users = [{NOBODY.pw_uid}, {NAMELESS}]")
        users = (User(NOBODY.pw_uid, "nobody"), User(NAMELESS, str(NAMELESS)))
        self.assertEqual(config.grpc_server.local_users, users)
        self.assertEqual(self.worker("[grpc_server]\nlocal_users = []").grpc_server.local_users, ())


class WarningTests(ConfigCase):
    """Sentences about a lack of protection, for the log at each start."""

    def test_allow_insecure(self) -> None:
        """A server that everybody may use is named, also on loopback."""
        config = self.scheduler("[http_server]\nallow_insecure = true\n[grpc_server]\nallow_insecure = true")
        http, grpc = config.warnings
        for word in ("[http_server]", "allow_insecure", "127.0.0.1:3000", "administrator"):
            self.assertIn(word, http)
        for word in ("[grpc_server]", "allow_insecure", "127.0.0.1:50000"):
            self.assertIn(word, grpc)
        self.assertEqual(len(self.worker("[grpc_server]\nallow_insecure = true").warnings), 1)

    def test_protected(self) -> None:
        """A server that knows its callers is not, whatever is allowed."""
        self.pem_files()
        self.assertEqual(self.scheduler("").warnings, [])
        tls = "[grpc_server]\nuse_tls = true\nca_file = 'ca.pem'\nallow_insecure = true"
        self.assertEqual(self.worker(tls).warnings, [])
