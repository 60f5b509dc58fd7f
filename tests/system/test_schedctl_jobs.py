"""``schedctl logs``, ``stop``, ``signal`` and ``wait`` against the real daemons."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.system.conftest import Daemon, wait_until
from tests.system.schedctl import User, finish

Cluster = tuple[Daemon, Daemon]

#: Writes three lines to each stream, waits for a file, writes one more, and exits with 5.
LINES = (
    "for i in 1 2 3; do echo out $i; echo err $i >&2; done; "
    "while [ ! -e {gate} ]; do sleep 0.05; done; echo out 4; echo err 4 >&2; exit 5"
)
OUT, ERR = b"out 1\nout 2\nout 3\n", b"err 1\nerr 2\nerr 3\n"

#: Counts signals, and exits with their number on another signal.
COUNTER = "n=0; trap 'n=$((n+1)); echo got $n' USR1; trap 'exit $n' USR2; echo begun; while :; do sleep 0.05; done"


@pytest.fixture
def user(cluster: Cluster, tmp_path: Path) -> User:
    """A user of a scheduler with one worker, ``w1``."""
    return User(cluster[0], tmp_path).online()


def submit(user: User, line: str) -> str:
    return user.client.submit(["sh", "-c", line], worker="w1").id


def wrote(user: User, job_id: str, size: int) -> None:
    """Wait until the job has written so many bytes to stdout."""
    wait_until(lambda: sum(map(len, user.client.output(job_id))) == size, "its output is there")


def test_logs(user: User, tmp_path: Path) -> None:
    """``logs`` shows both streams, one, or the last lines; with -f, everything until the job has ended."""
    gate = tmp_path / "gate"
    job_id = submit(user, LINES.format(gate=gate))
    wrote(user, job_id, len(OUT))
    assert user.run("logs", job_id) == (0, OUT, ERR)
    assert user.run("logs", "--stdout", job_id) == (0, OUT, b"")
    assert user.run("logs", "--stderr", job_id) == (0, ERR, b"")
    assert user.run("logs", "--tail", "1", job_id[:8]) == (0, b"out 3\n", b"err 3\n")
    both, last, one = (
        user.start("logs", "-f", *options, job_id) for options in ((), ("--tail", "1"), ("--stderr", "--tail", "2"))
    )
    for process, out, err in ((both, OUT, ERR), (last, b"out 3\n", b"err 3\n"), (one, b"err 2\nerr 3\n", b"")):
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(len(out)), process.stderr.read(len(err))) == (out, err)
    gate.touch()
    assert finish(both) == finish(last) == (0, b"out 4\n", b"err 4\n")
    assert finish(one) == (0, b"err 4\n", b"")


def test_logs_of_nothing(user: User) -> None:
    """The reason is shown for a job that never ran. A job that ran and wrote nothing has no message."""
    code, out, _ = user.run("run", "--detach", "no-such-command")
    assert code == 127
    job_id = out.decode().strip()
    for options in ((), ("-f",), ("--stderr",)):
        code, out, err = user.run("logs", *options, job_id)
        assert (code, out) == (0, b"")
        assert err.startswith(f"schedctl: there is no output: job {job_id[:8]} did not start: command".encode())
    silent = user.client.run("true", worker="w1").job.id
    assert user.run("logs", silent) == user.run("logs", "-f", silent) == (0, b"", b"")


def test_logs_interrupted(user: User, tmp_path: Path) -> None:
    """Ctrl-C ends the following of the output, and not the job."""
    job_id = submit(user, LINES.format(gate=tmp_path / "gate"))
    process = user.start("logs", "-f", job_id)
    assert process.stdout is not None
    assert process.stdout.read(len(OUT)) == OUT
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert user.jobs() == ["running"]


def test_logs_to_nobody(user: User) -> None:
    """A reader that goes away ends it quietly, whichever stream it read."""
    job_id = submit(user, "yes & yes >&2 & sleep 600")
    for options in ((), ("-f",), ("-f", "--stderr")):
        process = user.start("logs", *options, job_id)
        assert process.stdout is not None
        process.stdout.read(2)
        process.stdout.close()
        process.stdout = None
        code, _, err = finish(process)
        assert code == 141
        assert b"schedctl" not in err
    user.client.stop(job_id)


def test_ids(user: User) -> None:
    """A prefix is enough. A prefix that is too short or unknown is refused, and so is an unknown id."""
    job_id = submit(user, "echo it")
    user.client.wait(job_id)
    assert user.run("logs", job_id[:6]) == (0, b"it\n", b"")
    unknown = "0" * 8 if not job_id.startswith("0") else "1" * 8
    for text, words in (
        (job_id[:5], b"is too short"),
        (unknown, b"no job has an id that begins with"),
        ("00000000-0000-0000-0000-000000000000", b"not found"),
    ):
        for command in ("logs", "stop", "wait"):
            code, out, err = user.run(command, text)
            assert (code, out) == (125, b"")
            assert words in err
            assert b"schedctl ps -a" in err


def test_stop(user: User) -> None:
    """All named jobs are stopped, and printed; a failure is reported, and makes the code 125."""
    jobs = [submit(user, "exec sleep 600") for _ in range(3)]
    code, out, err = user.run("stop", jobs[0], "no-such-job", jobs[1][:8])
    assert (code, out.decode().split()) == (125, jobs[:2])
    assert err.startswith(b"schedctl: no job has an id that begins with 'no-such-job'\n")
    assert user.jobs() == ["running", "stopped", "stopped"]
    assert user.run("stop", jobs[0]) == (0, f"{jobs[0]}\n".encode(), b"")


def test_stop_later(user: User, cluster: Cluster) -> None:
    """A job whose worker is away is stopped later, with a message."""
    job_id = submit(user, "exec sleep 600")
    cluster[1].kill(signal.SIGKILL)
    wait_until(lambda: user.client.job(job_id).state == "unknown", "its worker counts as away")
    code, out, err = user.run("stop", job_id)
    assert (code, out) == (0, f"{job_id}\n".encode())
    assert b"will be stopped as soon as its worker can be told" in err


def test_signal(user: User) -> None:
    """A signal reaches the main process, by its name in any form; a job that has ended gets none."""
    job_id = submit(user, COUNTER)
    wrote(user, job_id, len("begun\n"))
    for number, name in enumerate(("SIGUSR1", "usr1"), 1):
        assert user.run("signal", job_id[:8], name) == (0, b"", b"")
        wrote(user, job_id, len("begun\n") + number * len("got 1\n"))
    assert user.run("signal", "--tree", job_id, "USR2") == (0, b"", b"")
    assert user.run("wait", job_id)[0] in (2, 128 + signal.SIGUSR2)
    code, _, err = user.run("signal", job_id, "USR1")
    assert code == 125
    assert b"schedctl show" in err


def test_wait(user: User, tmp_path: Path) -> None:
    """The code is that of the job; a job that runs beyond ``--timeout`` gives 121."""
    job_id = submit(user, LINES.format(gate=tmp_path / "gate"))
    code, out, err = user.run("wait", "--timeout", "0.5", job_id)
    assert (code, out) == (121, b"")
    assert f"job {job_id} has not ended within 0.5 s".encode() in err
    process = user.start("wait", job_id)
    (tmp_path / "gate").touch()
    assert finish(process) == (5, b"", b"")
    missing = user.client.submit("no-such-program", worker="w1")
    code, _, err = user.run("wait", missing.id)
    assert code == 127
    assert b"not found on PATH" in err


def test_wait_for_attempts(user: User, tmp_path: Path) -> None:
    """If a job is retried, its last attempt counts."""
    line = f"echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3"
    job = user.client.submit(["sh", "-c", line], worker="w1", retry={"attempts": 5, "delay": 0})
    assert user.run("wait", job.id) == (0, b"", b"")


def test_detach(user: User) -> None:
    """Only the id is printed; a command that can't be started is reported at once."""
    code, out, err = user.run("run", "--detach", "--", "sh", "-c", "exit 3")
    assert (code, err) == (0, b"")
    assert user.run("wait", out.decode().strip()) == (3, b"", b"")
    code, out, err = user.run("run", "--detach", "no-such-program")
    assert (code, len(out)) == (127, 37)
    assert b"not found on PATH" in err


def test_shell_line(user: User) -> None:
    assert user.run("run", "-s", "echo $((6 * 7)) && false || exit 4") == (4, b"42\n", b"")
