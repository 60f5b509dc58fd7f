"""Startup: the prepared process, if nothing is refused."""

import contextlib
import io
import json
import os
import time
from pathlib import Path

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from scheduler import __version__
from scheduler.daemon.announcement import ANNOUNCE_AGAIN_SECONDS, Announcement
from scheduler.daemon.startup import SchedulerOptions, WorkerOptions, use_monotonic_time
from scheduler.daemon.state_dir import StateDir
from scheduler.net import Address
from tests.unit.start_case import StartCase


class ReadyTests(StartCase):
    """The result if nothing is refused."""

    def test_configuration(self) -> None:
        """The tap finds the configuration of either program."""
        scheduler, worker = SchedulerOptions(), WorkerOptions()
        self.parse(scheduler)
        self.assertEqual(scheduler.config.http_server.addr.port, 0)
        scheduler.state.release()
        self.write('[grpc_server]\naddr = "127.0.0.1:0"')
        self.parse(worker)
        self.assertEqual(str(worker.config.scheduler), "127.0.0.1:50000")

    def test_private(self) -> None:
        """The state folder, and all files written later, are only for the process's user."""
        options = SchedulerOptions()
        self.parse(options)
        self.assertEqual((self.folder / "state").stat().st_mode & 0o777, 0o700)
        self.assertEqual(os.umask(0o077), 0o077)

    def test_umask_of_jobs(self) -> None:
        """Jobs get the umask that twistd was started with, or was told to use."""
        self.write('[grpc_server]\naddr = "127.0.0.1:0"')
        for twistd, expected in (((), 0o027), (("-n",), 0o027), (("--umask", "007"), 0o007)):
            os.umask(0o027)
            options = WorkerOptions()
            self.parse(options, *twistd)
            self.assertEqual((options.umask, os.umask(0o077)), (expected, 0o077))
            options.state.release()

    def test_owner(self) -> None:
        """A new folder belongs to the user that the process will become."""
        if os.geteuid() != 0:
            self.skipTest("only root can give a folder away")
        self.parse(SchedulerOptions(), "--uid", "65534", "--gid", "65534")
        self.assertEqual((self.folder / "state").stat().st_uid, 65534)

    def test_foreground(self) -> None:
        """In the foreground there is no pidfile, and twistd logs to stdout."""
        twistd = self.parse(SchedulerOptions(), "-n")
        self.assertEqual((twistd["pidfile"], twistd["logfile"]), ("", None))

    def test_daemon(self) -> None:
        """A daemon's pidfile and log are in its state folder, under the name of the program."""
        for options, name in ((SchedulerOptions(), "scheduler"), (WorkerOptions(), "worker")):
            self.write(
                '[grpc_server]\naddr = "127.0.0.1:0"\n' + '[http_server]\naddr = "127.0.0.1:0"\n' * (name != "worker")
            )
            twistd = self.parse(options)
            self.assertEqual(twistd["pidfile"], str(self.folder / f"state/{name}.pid"))
            self.assertEqual(twistd["logfile"], str(self.folder / f"state/{name}.log"))
            options.state.release()

    def test_twistd_options_win(self) -> None:
        """twistd's options for pidfile and log are respected."""
        for arguments in (["--pidfile", "x.pid", "-l", "x.log"], ["-n", "--pidfile", "x.pid", "-l", "x.log"]):
            options = SchedulerOptions()
            twistd = self.parse(options, *arguments)
            self.assertEqual((twistd["pidfile"], twistd["logfile"]), (os.path.abspath("x.pid"), "x.log"))
            options.state.release()

    def test_stale_pidfile(self) -> None:
        """A stale pidfile does not stop a daemon from starting, even if its pid is that of a live process."""
        (self.folder / "state").mkdir(0o700)
        pidfile = self.folder / "state/scheduler.pid"
        pidfile.write_text(str(os.getpid()))
        self.parse(SchedulerOptions())
        self.assertFalse(pidfile.exists())

    def test_lock_survives_daemonizing(self) -> None:
        """The lock is held after the process that took it has forked and ended."""
        state = StateDir(self.folder / "state")
        go, wait = os.pipe()
        child = os.fork()
        if child == 0:  # like twistd: lock, fork, and the first process ends
            state.take()
            if os.fork() == 0:
                os.close(wait)
                os.read(go, 1)  # until the test closes the pipe
            os._exit(0)
        os.close(go)
        os.waitpid(child, 0)
        self.assertRaises(BlockingIOError, state.take)
        os.close(wait)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                state.take()
            except BlockingIOError:
                os.sched_yield()
            else:
                return state.release()
        self.fail("the lock outlived its process")
        return None

    def test_lock_is_not_handed_on(self) -> None:
        """A child process does not hold the lock."""
        state = StateDir(self.folder / "state")
        state.take()
        self.addCleanup(state.release)
        files = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
        (lock,) = [path for path in files if path.resolve().parent == (self.folder / "state").resolve()]
        self.assertFalse(os.get_inheritable(int(lock.name)))

    def test_endpoints(self) -> None:
        """The addresses are in a file while the servers listen. A file left by a killed process is removed at the
        start.
        """
        state = StateDir(self.folder / "state")
        state.take()
        state.write_endpoints(http="127.0.0.1:3000", grpc="127.0.0.1:50000")
        file = self.folder / "state/endpoints.json"
        self.assertEqual(json.loads(file.read_text()), {"http": "127.0.0.1:3000", "grpc": "127.0.0.1:50000"})
        self.assertEqual({each.name for each in file.parent.iterdir()}, {"lock", "endpoints.json"})
        state.release()
        state.take()
        self.assertFalse(file.exists())
        state.write_endpoints(grpc="127.0.0.1:1")
        state.remove_endpoints()
        self.assertFalse(file.exists())
        state.remove_endpoints()
        state.release()

    def test_no_room_for_endpoints(self) -> None:
        """If the file can't be written, the process starts all the same, logs this, and writes the file later."""
        state, clock = StateDir(self.folder / "state"), Clock()
        state.take()
        self.addCleanup(state.release)
        draft, file = self.folder / "state/endpoints.json.tmp", self.folder / "state/endpoints.json"
        draft.mkdir()
        server = type("Server", (), {"bound": Address("127.0.0.1", 3000)})()
        announcement = Announcement(clock, state, http=server)
        with capturedLogs() as logged:
            announcement.startService()
        self.assertIn("can't be written", str(formatEvent(logged[0])))
        self.assertFalse(file.exists())
        draft.rmdir()
        clock.advance(ANNOUNCE_AGAIN_SECONDS)
        self.assertEqual(json.loads(file.read_text()), {"http": "127.0.0.1:3000"})
        announcement.stopService()
        self.assertEqual((file.exists(), clock.getDelayedCalls()), (False, []))
        draft.mkdir()
        announcement.startService()
        announcement.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])


class HelpTests(SynchronousTestCase):
    def test_help(self) -> None:
        """The help of each program has its purpose, its sample and its usage."""
        for options, sample in ((SchedulerOptions(), "etc/scheduler.toml"), (WorkerOptions(), "etc/worker.toml")):
            text = str(options)
            for part in (f"twistd [twistd options] {options.program} -c FILE", "--config=", sample, "SIGTERM"):
                self.assertIn(part, text)

    def test_help_needs_no_config(self) -> None:
        """The help and the version start nothing."""
        self.assertIn("--new-id", str(WorkerOptions()))
        for question, answer in (("--help", "Usage: twistd"), ("--version", f"scheduler-gateway {__version__}\n")):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                self.assertEqual(self.assertRaises(SystemExit, SchedulerOptions().parseOptions, [question]).code, 0)
            self.assertTrue(printed.getvalue().startswith(answer))


class TimeTests(SynchronousTestCase):
    def test_monotonic(self) -> None:
        """A reactor's timers follow a clock that can't be set."""

        class Reactor(ReactorBase):
            def installWaker(self) -> None:
                pass

        reactor = Reactor()
        use_monotonic_time(reactor)
        call = reactor.callLater(100, lambda: None)
        self.assertApproximates(call.getTime(), time.monotonic() + 100, 10)
        call.cancel()
