"""HTTPS with the real daemon: ``schedctl``, the checks of ``doctor``, and the warning of an unprotected server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.system.conftest import SCHEDULER, Daemon
from tests.system.schedctl import WAIT_MAX_SECONDS, command_line

Make = Callable[..., Daemon]

AUTHORITY = trustme.CA()

TLS = SCHEDULER.replace("[http_server]\n", "[http_server]\nuse_tls = true\n")


@pytest.fixture
def scheduler(daemons: Make, tmp_path: Path) -> Daemon:
    """A scheduler with HTTPS; the authority is ``ca.pem`` beside its folder."""
    made = daemons("scheduler", TLS)
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pair = AUTHORITY.issue_cert("localhost", "127.0.0.1")
    pair.private_key_pem.write_to_path(str(made.folder / "server.key"))
    (made.folder / "server.key").chmod(0o600)
    pair.cert_chain_pems[0].write_to_path(str(made.folder / "server.pem"))
    return made.start()


def schedctl(home: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command; ``home`` has no configuration."""
    environ = {**os.environ, "XDG_CONFIG_HOME": str(home), **variables}
    done = subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=WAIT_MAX_SECONDS, check=False, env=environ
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def token(scheduler: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator's token in the environment: over HTTPS nobody is a user of this machine."""
    monkeypatch.setenv("SCHEDULER_TOKEN", (scheduler.state / "admin.token").read_text().strip())


@pytest.mark.usefixtures("token")
def test_schedctl(scheduler: Daemon, tmp_path: Path) -> None:
    """schedctl speaks https with the authority that an option or a variable names, and refuses any other server."""
    url = f"https://{scheduler.endpoints['http']}"
    ca_file = str(tmp_path / "ca.pem")
    assert schedctl(tmp_path, "--url", url, "--ca-file", ca_file, "workers", "--json")[:2] == (0, "")
    assert schedctl(tmp_path, "workers", "--json", SCHEDULER_URL=url, SCHEDULER_CA_FILE=ca_file)[:2] == (0, "")
    code, _, said = schedctl(tmp_path, "--url", url, "workers")
    assert code == 125
    assert "certificate" in said
    code, _, said = schedctl(tmp_path, "--url", url, "--ca-file", str(tmp_path / "none.pem"), "workers")
    assert code == 125
    assert "none.pem" in said
    code, _, said = schedctl(tmp_path, "--url", url.replace("https", "http"), "workers")
    assert code == 125
    assert "use https://" in said
    code, told, _ = schedctl(tmp_path, "--url", url.replace("https", "http"), "doctor")
    assert code == 1
    assert "that port speaks HTTPS" in told


@pytest.mark.usefixtures("token")
def test_doctor(scheduler: Daemon, tmp_path: Path) -> None:
    """doctor checks the pair of the HTTP server, and the certificate that it serves."""
    url, ca_file = f"https://{scheduler.endpoints['http']}", str(tmp_path / "ca.pem")

    def findings() -> set[tuple[str, str]]:
        arguments = ("--url", url, "--ca-file", ca_file, "doctor", "--json", "--config", str(scheduler.file))
        lines = map(json.loads, schedctl(tmp_path, *arguments)[1].splitlines())
        return {(line["subject"], line["severity"]) for line in lines if "certificate" in line["sentence"].lower()}

    pair = f"{scheduler.file}, [http_server]"
    assert findings() == {("certificate", "ok"), (pair, "ok")}
    AUTHORITY.issue_cert("localhost").private_key_pem.write_to_path(str(scheduler.folder / "server.key"))
    assert (pair, "error") in findings()


def test_warning(daemons: Make) -> None:
    """Each start of a server that nothing protects logs a warning."""
    scheduler = daemons("scheduler", SCHEDULER.replace("[http_server]\n", "[http_server]\nallow_insecure = true\n"))
    for times in (1, 2):
        scheduler.start()
        scheduler.kill()
        assert scheduler.log.read_text().count("everyone who can reach 127.0.0.1:0 is an administrator") == times
