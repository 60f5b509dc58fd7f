"""``schedctl run`` against the real daemons: bytes, codes, and a scheduler that is killed."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config
from tests.system.schedctl import PATIENT, STUBBORN, User, command_line, finish, job_of

Cluster = tuple[Daemon, Daemon]

#: Writes 3 MB to each stream in pieces, and exits with 7.
WRITER = """
import os, random, sys, time
source = random.Random(5)
for _ in range(300):
    for stream in (1, 2):
        data = source.randbytes(10_000)
        while data:
            data = data[os.write(stream, data):]
    time.sleep(0.01)
sys.exit(7)
"""


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path) -> User:
    """A user of a scheduler with one worker, ``w1``."""
    return User(cluster[0], tmp_path).online()


@pytest.mark.parametrize(
    "line",
    [
        "echo out; echo err >&2",
        "printf 'no newline'; printf 'nor here' >&2",
        r"printf '\000\377\200\r\n\033[31m'; printf '\303' >&2; exit 255",
        "exit 1",
        "exit 121",
        "exit 125",
        "head -c 3000000 /dev/zero; exit 3",
        "kill -9 $$",
        "kill -SEGV $$",
    ],
)
def test_as_if_it_ran_here(user: User, line: str) -> None:
    """Both streams and the code are those of the same command run locally, without additions."""
    here = subprocess.run(["sh", "-c", line], check=False, capture_output=True, stdin=subprocess.DEVNULL)
    code = here.returncode if here.returncode >= 0 else 128 - here.returncode
    assert user.run("run", "--", "sh", "-c", line) == (code, here.stdout, here.stderr)


def test_live(user: User, tmp_path: Path) -> None:
    """Output arrives as soon as the job wrote it, before the job continues."""
    gate = tmp_path / "gate"
    process = user.start("run", "--on", "w1", "sh", "-c", PATIENT.format(gate=gate))
    assert process.stdout is not None
    assert process.stdout.read(6) == b"begun\n"
    gate.touch()
    assert finish(process) == (0, b"passed\n", b"")


def test_options(user: User, tmp_path: Path) -> None:
    """The job is as the options say; an option behind the command belongs to the command."""
    (tmp_path / "deploy").write_text(
        '#!/bin/sh\necho "$0" | grep -c deploy; echo "$1 $A $B $(pwd) $(umask)"; echo e >&2\n'
    )
    user.environ["B"] = "from here"
    done = user.run(
        "run", "-e", "A=1=2", "--env", "B", "--cwd", "/tmp", "--umask", "0027", "--merge-stderr",
        "--label", "team=web", "--script", str(tmp_path / "deploy"), "--", "-x",
    )  # fmt: skip
    assert done == (0, b"0\n-x 1=2 from here /tmp 0027\ne\n", b"")
    assert [job.labels for job in user.client.jobs()] == [{"team": "web"}]
    assert user.run("run", "echo", "--on", "-n")[1] == b"--on -n\n"


def test_stdin(user: User, tmp_path: Path) -> None:
    """A pipe and a file are passed on, byte for byte; with -n, and from /dev/null, the job reads nothing."""
    data = bytes(range(256)) * 1000
    assert user.run("run", "cat", data=data) == (0, data, b"")
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as file:
        assert user.run("run", "sha256sum", file=file)[1].split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert user.run("run", "-n", "cat", data=data) == (0, b"", b"")
    assert user.run("run", "cat") == (0, b"", b"")
    script = b'#!/bin/sh\necho "script $1"; cat\n'
    assert user.run("run", "--script", "-", "--", "it", data=script) == (0, b"script it\n", b"")


def test_stdin_limit(user: User) -> None:
    """Input that fits into a request is passed on. One more byte is an error, and nothing is started."""
    code, _, err = user.run("run", "wc", "-c", data=b"\xff" * 2_000_000)
    assert (code, user.jobs()) == (125, [])
    found = re.search(rb"stdin has more than the (\d+) bytes", err)
    assert found, err
    limit = int(found[1])
    assert limit > 700_000
    assert user.run("run", "wc", "-c", data=b"\xff" * limit)[:2] == (0, b"%d\n" % limit)
    assert user.run("run", "wc", "-c", data=b"\xff" * (limit + 1))[0] == 125


def test_endless_stdin(user: User) -> None:
    """A stdin that does not end is mentioned, because the job is not started before its end."""
    process = user.start("run", "cat", stdin=subprocess.PIPE)
    assert process.stderr is not None
    assert b"reading stdin to its end before the job starts" in process.stderr.readline()
    assert user.jobs() == []
    assert finish(process, b"late")[:2] == (0, b"late")


def test_own_codes(user: User, tmp_path: Path) -> None:
    """124, 126, 127 and 125 come with a sentence that explains them."""
    plain = tmp_path / "plain"
    plain.touch()
    for arguments, code, words in (
        (("--timeout", "1s", "sleep", "60"), 124, b"timed out after 1 s"),
        (("no-such-program",), 127, b"not found on PATH"),
        ((str(plain),), 126, b"is not executable"),
        (("--cwd", "/no/such", "true"), 125, b"cwd '/no/such': not found"),
        (("--on", "nobody", "true"), 125, b"worker 'nobody' not found\n"),
        (("-l", "gpu=1", "true"), 125, b"no worker matches"),
        (("--on", "w11", "true"), 125, b"Did you mean w1?"),
        (("--env", "9=1", "true"), 125, b"9"),
    ):
        found, out, err = user.run("run", *arguments)
        assert (found, out) == (code, b""), (arguments, err)
        assert err.startswith(b"schedctl: "), err
        assert words in err


def test_no_scheduler(user: User, cluster: Cluster) -> None:
    """An address without a server, or without a scheduler, gives 125 at once, with a hint."""
    for url in ("http://127.0.0.1:9", f"http://{cluster[0].endpoints['grpc']}"):
        code, out, err = user.run("--url", url, "run", "true")
        assert (code, out) == (125, b"")
        assert f"schedctl: no answer from {url}: ".encode() in err
        assert b"SCHEDULER_URL" in err
    assert user.jobs() == []


def test_broken_pipe(user: User) -> None:
    """When its output has no reader any more the job is stopped, and schedctl ends quietly, as by SIGPIPE."""
    process = user.start("run", "yes")
    assert process.stdout is not None
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    process.stdout = None
    assert finish(process)[::2] == (141, b"")
    assert user.jobs() == ["stopped"]


def test_killed_scheduler(user: User, cluster: Cluster) -> None:
    """A scheduler that is killed and comes back costs no byte of either stream.

    There is no message about the connection. If the worker takes a second to come back, a message says that the job is
    unknown.
    """
    scheduler, _ = cluster
    here = subprocess.run([sys.executable, "-c", WRITER], check=False, capture_output=True)
    process = user.start("run", sys.executable, "-c", WRITER)
    wait_until(lambda: user.jobs() == ["running"], "the job runs")  # whichever of its streams comes first
    scheduler.crash()
    code, out, err = finish(process)
    err = re.sub(rb"schedctl: job [0-9a-f]{8} is unknown, waiting for its worker: [^\n]*\n", b"", err)
    assert (code, len(out), len(err)) == (7, len(here.stdout), len(here.stderr))
    assert (out, err) == (here.stdout, here.stderr)


def test_scheduler_stays_away(user: User, cluster: Cluster) -> None:
    """A connection that can't be resumed gives 121, with a hint how to find the job."""
    scheduler, _ = cluster
    process = user.start("run", "--patience", "2s", "sh", "-c", "echo begun; sleep 600")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"begun\n"
    scheduler.kill(signal.SIGKILL)
    code, out, err = finish(process)
    assert (code, out) == (121, b"")
    assert b"can't be watched any longer, it may still run" in err
    assert f"schedctl wait {job_of(err)}".encode() in err


def test_worker_stays_away(user: User, cluster: Cluster) -> None:
    """A job whose worker is gone is waited for, with a message, and then gives 121."""
    process = user.start("run", "--patience", "3s", "sh", "-c", "echo begun; sleep 600")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"begun\n"
    cluster[1].kill(signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 121, err
    assert b"is unknown, waiting for its worker" in err
    assert b"is unknown, it may still run" in err


@pytest.fixture
def crowded(daemons: Callable[..., Daemon], tmp_path: Path) -> User:
    """A user of a scheduler whose worker has one slot."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    daemons("worker", worker_config(scheduler.endpoints["grpc"]).replace("slots = 50", "slots = 1")).start()
    return User(scheduler, tmp_path).online()


def test_queued(crowded: User, tmp_path: Path) -> None:
    """A queued job's state and reason are shown: once in a pipe, with the elapsed time in a terminal."""
    gate = tmp_path / "gate"
    crowded.client.submit(["sh", "-c", STUBBORN.format(gate=gate)], selector={})
    shown = crowded.terminal("run", "echo", "first")
    shown.until(b"is queued")
    piped = crowded.start("run", "echo", "second")
    assert piped.stderr is not None
    line = piped.stderr.readline()
    assert re.match(rb"schedctl: job [0-9a-f]{8} is queued.*: .*slot.* \([0-9.]+s\)\n", line), line
    assert re.search(rb"is queued[^\r]*: [^\r]*slot[^\r]*\([2-9][0-9.]*s\)", shown.until(b"(3.")), shown.text
    gate.touch()
    code, text = shown.end()
    assert code == 0
    assert re.search(rb"\r\x1b\[Kschedctl: job [0-9a-f]{8} starts on w1 after [0-9.]+s in the queue\r\nfirst\r\n", text)
    code, out, err = finish(piped)
    assert (code, out) == (0, b"second\n")
    assert re.fullmatch(rb"schedctl: job [0-9a-f]{8} starts on w1 after [0-9.]+s in the queue\n", err), err


def test_others_who_wait_for_a_queued_job(crowded: User, tmp_path: Path) -> None:
    """wait and logs -f also show the reason of a queued job, and continue when it runs."""
    gate = tmp_path / "gate"
    crowded.client.submit(["sh", "-c", STUBBORN.format(gate=gate)], selector={})
    job = crowded.client.submit(["sh", "-c", "echo out; exit 3"], selector={})
    commands = [crowded.start("wait", job.id), crowded.start("logs", "-f", job.id)]
    for process in commands:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert re.match(rb"schedctl: job [0-9a-f]{8} is queued.*: .*slot.* \([0-9.]+s\)\n", line), line
    gate.touch()
    assert [finish(process) for process in commands] == [(3, b"", b""), (0, b"out\n", b"")]


def test_retry(user: User, tmp_path: Path) -> None:
    """The output of all attempts is shown, and the code is that of the last."""
    line = f"echo try; echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3"
    code, out, err = user.run("run", "--retry", "5", "--retry-delay", "0", "sh", "-c", line)
    assert (code, out) == (0, b"try\n" * 3)
    assert err.count(b"failed: exit status 1; trying again as job") == 2


def test_same_key(user: User, tmp_path: Path) -> None:
    """The same command with the same key runs once, and shows the same."""
    arguments = ("run", "--key", "k1", "sh", "-c", f"echo ran; echo x >> {tmp_path}/ran; exit 4")
    assert user.run(*arguments) == user.run(*arguments) == (4, b"ran\n", b"")
    assert (tmp_path / "ran").read_text() == "x\n"


def test_not_utf8(user: User) -> None:
    """A command line that no request can carry is refused."""
    code, out, err = user.run("run", "echo", os.fsdecode(b"\xff"))
    assert (code, out) == (125, b"")
    assert b"is not UTF-8" in err


def in_shell(user: User, redirection: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run it with the redirections of a shell."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *command_line(*arguments)],
        env=user.environ,
        check=False,
        capture_output=True,
    )


@pytest.mark.parametrize(
    ("redirection", "out", "err"),
    [("<&-", b"out\n", b"err\n"), (">&-", b"", b"err\n"), ("2>&-", b"out\n", b""), ("<&- >&- 2>&-", b"", b"")],
)
def test_closed_descriptors(user: User, redirection: str, out: bytes, err: bytes) -> None:
    """Output for a closed descriptor is dropped; the job and its code are not affected."""
    done = in_shell(user, redirection, "run", "-s", "echo out; echo err >&2; exit 5")
    assert (done.returncode, done.stdout, done.stderr) == (5, out, err)


def test_full_disk_here(user: User) -> None:
    """Output that can't be written here is no failure of the job: it continues, and can be found."""
    for options in ((), ("--detach",)):
        done = in_shell(user, ">/dev/full", "run", *options, "--", "sh", "-c", "echo out; exit 1")
        assert done.returncode == 121
        sentence, step = done.stderr.decode().splitlines()
        assert "can't be written here, and it goes on: No space left on device" in sentence
        assert "schedctl wait" in step
        assert user.run("wait", job_of(done.stderr))[0] == 1
    for command in (("ps", "-a"), ("--help",), ("logs", job_of(done.stderr))):
        done = in_shell(user, ">/dev/full", *command)
        assert (done.returncode, done.stderr.count(b"\n")) == (125, 2)
        assert b"schedctl: stdout can't be written: No space left on device" in done.stderr


def test_output_to_a_closed_terminal(user: User) -> None:
    """A terminal that is gone has no reader: the job is stopped, as with a closed pipe."""
    shown = user.terminal("run", "-s", "trap '' HUP; while echo out; do sleep 0.05; done")
    shown.until(b"out")
    shown.close()
    assert shown.process.returncode in (141, 143)  # the closed terminal or SIGHUP may be noticed first
    assert user.jobs() == ["stopped"]
