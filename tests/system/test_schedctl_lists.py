"""``schedctl ps``, ``show``, ``workers``, ``drain``, ``forget``, ``doctor`` and completion, with real daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from trustme import CA

from scheduler.client import Client
from tests.system.conftest import SCHEDULER, Daemon, wait_until, worker_config
from tests.system.schedctl import Terminal, User, command_line, finish

#: Runs until a file exists.
UNTIL = "while ! [ -e {} ]; do sleep 0.05; done"


class Schedctl(User):
    """A user who reads text."""

    def said(self, *arguments: str) -> tuple[int, str, str]:
        """The exit code, stdout and stderr, in pipes."""
        code, out, err = self.run(*arguments)
        return code, out.decode(), err.decode()

    def out(self, *arguments: str) -> str:
        """The stdout of a command that succeeds and writes nothing to stderr."""
        code, out, err = self.said(*arguments)
        assert (code, err) == (0, ""), (arguments, code, out, err)
        return out

    def terminal(self, *arguments: str, width: int = 80, **environ: str) -> Terminal:
        """A terminal with so many columns; only the test's variables decide about colours."""
        own = {name: value for name, value in self.environ.items() if name != "NO_COLOR"}
        return Terminal(command_line(*arguments), {**own, **environ}, width)

    def shown(self, *arguments: str, width: int = 80, **environ: str) -> str:
        """The output of a command that succeeds, in a terminal."""
        code, text = self.terminal(*arguments, width=width, **environ).end()
        assert code == 0, text
        return text.decode().replace("\r\n", "\n")


@pytest.fixture
def schedctl(cluster: tuple[Daemon, Daemon], tmp_path: Path) -> Schedctl:
    """``schedctl`` for a cluster whose worker ``w1`` is online."""
    home = tmp_path / "home"
    home.mkdir()
    made = Schedctl(cluster[0], home)
    made.online()
    return made


@pytest.fixture
def client(schedctl: Schedctl) -> Client:
    return schedctl.client


def shell(line: str) -> list[str]:
    return ["/bin/sh", "-c", line]


def test_last_nights_failed_job(schedctl: Schedctl, client: Client) -> None:
    """The failed job among several is found by its state and time, and shown with its end."""
    client.run(shell("true"), worker="w1")
    failed = client.run(shell("echo no >&2; exit 3"), worker="w1", labels={"team": "web"}).job.id
    running = client.submit(shell("sleep 600"), worker="w1").id
    assert schedctl.out("ps", "-q") == f"{running}\n"
    assert schedctl.out("ps", "-a", "-q", "--state", "failed", "--since", "12h") == f"{failed}\n"
    assert schedctl.out("ps", "-q", "--state", "failed", "--until", "12h") == ""
    assert schedctl.out("ps", "-q", "--ended-since", "12h", "-l", "team=web") == f"{failed}\n"
    titles, row = schedctl.out("ps", "-a", "--state", "failed").splitlines()
    assert titles.split() == ["ID", "WORKER", "STATE", "AGE", "RAN", "EXIT", "COMMAND"]
    assert row.split()[:3] == [failed[:8], "w1", "failed"]
    assert row.endswith("echo no >&2; exit 3")
    shown = schedctl.out("show", failed)
    for part in ("failed: exit status 3", "exit code   3", "stderr 3 B", "labels      team=web"):
        assert part in shown
    assert json.loads(schedctl.out("show", "--json", failed)) == dict(client.job(failed).data)
    lines = schedctl.out("ps", "-a", "--json", "-n", "2").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [running, failed]


def test_terminal(schedctl: Schedctl, client: Client) -> None:
    """In a terminal a table has its width and colours, and no colours with NO_COLOR."""
    client.run(shell(f"exit 3; {'x' * 200}"), worker="w1")
    assert "\x1b[31mfailed\x1b[0m" in schedctl.shown("ps", "-a", width=60)
    shown = schedctl.shown("ps", "-a", width=60, NO_COLOR="1")
    assert "\x1b" not in shown
    row = shown.splitlines()[1]
    assert len(row) == 60
    assert row.endswith("…")
    piped = schedctl.out("ps", "-a")
    assert "x" * 200 in piped
    assert "\x1b" not in piped


def test_watch(schedctl: Schedctl, client: Client, tmp_path: Path) -> None:
    """With --watch the screen changes as jobs do, until Ctrl-C, which is no failure."""
    terminal = schedctl.terminal("ps", "-a", "--watch")
    terminal.until(b"COMMAND")
    job = client.submit(shell(UNTIL.format(tmp_path / "gate")), worker="w1").id
    terminal.until(f"{job[:8]}  w1      \x1b[34mrunning".encode())
    (tmp_path / "gate").touch()
    terminal.until(b"succeeded")
    terminal.type(b"\x03")
    assert terminal.end()[0] == 0


def test_dumb_terminal(schedctl: Schedctl) -> None:
    """On a terminal without control sequences no table is redrawn, and a message says so."""
    code, text = schedctl.terminal("ps", "--watch", TERM="dumb").end()
    assert (code, b"\x1b" in text, b"that can be redrawn" in text) == (125, False, True)


def test_drain(schedctl: Schedctl, client: Client, tmp_path: Path) -> None:
    """Draining waits for the last job, and keeps others away until the worker is resumed."""
    job = client.submit(shell(UNTIL.format(tmp_path / "gate")), worker="w1").id
    code, out, err = schedctl.said("drain", "--wait", "--timeout", "0.1s", "w1")
    assert (code, out) == (124, "")
    assert "jobs still run on w1" in err
    waiting = schedctl.start("drain", "--wait", "w1")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == b"w1 is drained; 1 job still runs there.\n"
    assert waiting.poll() is None
    assert "online, drained" in schedctl.out("workers")
    (tmp_path / "gate").touch()
    assert finish(waiting) == (0, b"", b"w1 is drained, and no job runs there.\n")
    assert client.wait(job, 20).state == "succeeded"
    assert schedctl.said("resume", "w1") == (0, "", "w1 takes jobs again.\n")
    assert client.run(shell("true"), worker="w1").succeeded


def test_forget(schedctl: Schedctl, cluster: tuple[Daemon, Daemon]) -> None:
    """An online worker can't be forgotten; one that is gone can."""
    code, out, err = schedctl.said("forget", "w1")
    assert (code, out) == (125, "")
    assert "online" in err
    cluster[1].kill(signal.SIGKILL)
    wait_until(lambda: "unreachable" in schedctl.out("workers"), "its death is noticed")
    assert schedctl.said("forget", "w1") == (0, "", "w1 is forgotten.\n")
    assert schedctl.out("workers", "--json") == ""


def test_remove(schedctl: Schedctl, client: Client) -> None:
    """An ended job is removed by a prefix of its id; a running one stays."""
    ended = client.run(shell("true"), worker="w1").job.id
    running = client.submit(shell("sleep 600"), worker="w1").id
    code, out, err = schedctl.said("rm", running, ended[:8])
    assert (code, out) == (125, "")
    assert running in err
    assert schedctl.out("ps", "-a", "-q") == f"{running}\n"


def test_version(schedctl: Schedctl) -> None:
    """Both have this version."""
    own, theirs = schedctl.out("version").splitlines()
    assert own.split()[1] == theirs.split()[1]


def test_doctor(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """The doctor finds no problem with working daemons, and then each problem that was caused."""
    scheduler = daemons("scheduler", SCHEDULER).start()
    worker = daemons("worker", worker_config(scheduler.endpoints["grpc"], more='spool_min_free = "1B"\n')).start()
    schedctl = Schedctl(scheduler, tmp_path)
    files = ("--config", str(scheduler.file), "--config", str(worker.file))
    wait_until(lambda: schedctl.out("workers", "--format", "{state}") == "online\n", "the worker is online")

    def wrong() -> dict[str, str]:
        _, out, err = schedctl.said("doctor", "--json", *files)
        assert err == ""
        found = [json.loads(line) for line in out.splitlines()]
        assert all(each["advice"] for each in found if each["severity"] in ("warning", "error"))
        # The disk of the testing machine is not of interest.
        return {
            each["sentence"]: each["advice"]
            for each in found
            if each["severity"] in ("warning", "error") and "free" not in each["sentence"]
        }

    assert wrong() == {}
    code, out, _ = schedctl.said("doctor", *files)
    assert "ok      scheduler: It answers" in out
    assert f"ok      {worker.file}: [grpc_server] listens at" in out
    assert code in (0, 1)
    os.kill(worker.pid, signal.SIGSTOP)
    wait_until(lambda: "unreachable" in schedctl.out("workers"), "its silence is noticed")
    (sentence,) = wrong()
    assert sentence.startswith("It is unreachable: ")
    os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: "online" in schedctl.out("workers"), "it is back")
    worker.kill(signal.SIGKILL)
    assert any("[grpc_server] does not listen at" in each for each in wrong())
    scheduler.kill()
    found = wrong()
    assert any("It can't be asked at" in each for each in found)
    assert any("This scheduler does not run" in each for each in found)
    assert any("The scheduler can't be reached from here" in each for each in found)


def test_completion(schedctl: Schedctl, client: Client) -> None:
    """bash completes commands, workers and jobs by schedctl's script; without a scheduler it stays silent."""
    job = client.run(shell("true"), worker="w1").job.id
    shim = Path(schedctl.environ["XDG_CONFIG_HOME"]) / "bin"
    shim.mkdir()
    quoted = " ".join(f"'{word}'" for word in command_line())
    (shim / "schedctl").write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    (shim / "schedctl").chmod(0o755)
    script = schedctl.out("completion", "bash")

    def complete(*words: str, **environ: str) -> list[str]:
        asked = (
            f"{script}\nCOMP_WORDS=({' '.join(repr(word) for word in words)})\nCOMP_CWORD={len(words) - 1}\n"
            '_schedctl_completion schedctl\nprintf "%s\\n" "${COMPREPLY[@]}"'
        )
        path = f"{shim}:{schedctl.environ['PATH']}"
        done = subprocess.run(
            ["bash", "--norc", "-c", asked],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**schedctl.environ, "PATH": path, **environ},
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert complete("schedctl", "dr") == ["drain"]
    assert complete("schedctl", "drain", "") == ["w1"]
    assert complete("schedctl", "show", "") == [job[:8]]
    assert complete("schedctl", "show", job[:10]) == [job]
    assert complete("schedctl", "show", "", SCHEDULER_URL="http://127.0.0.1:1") == []


def test_doctor_tls(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """With certificates it dials the scheduler like a worker, and finds those of another authority."""
    (tmp_path / "pem").mkdir()
    issue(tmp_path / "pem", CA())
    scheduler = daemons("scheduler", SCHEDULER.replace("[grpc_server]", tls(tmp_path / "pem"))).start()
    config = worker_config(scheduler.endpoints["grpc"]).replace("[grpc_server]", tls(tmp_path / "pem"))
    worker = daemons("worker", config).start()
    schedctl = Schedctl(scheduler, tmp_path)

    def said() -> str:
        code, out, err = schedctl.said("doctor", "--config", str(worker.file))
        assert err == ""
        assert code in (0, 1)
        return out

    well = said()
    assert "The scheduler can be reached from here" in well
    assert "The certificate is valid until" in well
    assert "authority" not in well
    (tmp_path / "other").mkdir()
    issue(tmp_path / "other", CA())
    worker.file.write_text(worker.file.read_text().replace(str(tmp_path / "pem"), str(tmp_path / "other")))
    assert "its certificate is not accepted here" in said()
    # The worker trusts the scheduler, but the scheduler does not trust the worker.
    (tmp_path / "other" / "ca.pem").write_bytes((tmp_path / "pem" / "ca.pem").read_bytes())
    broken = said()
    assert "TLS fails" in broken
    assert "No authority in ca_file has signed the certificate in crt_file" in broken
    worker.file.write_text(worker.file.read_text().replace("use_tls = true", "use_tls = false"))
    assert "it has use_tls, most probably" in said()


def tls(folder: Path) -> str:
    """The table ``[grpc_server]`` with the files of that folder."""
    files = {"crt_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}
    return "[grpc_server]\nuse_tls = true\n" + "".join(f'{key} = "{folder / name}"\n' for key, name in files.items())


def issue(folder: Path, ca: CA) -> None:
    """Write a pair for this machine, signed by that authority, to files."""
    issued = ca.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    issued.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.key").chmod(0o600)
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
