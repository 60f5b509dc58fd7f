"""The commands in README and docs work exactly as written."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.client import Client
from tests.system.conftest import BIN, ROOT, Daemon, wait_until
from tests.system.documents import RUN, Block, Command, Differs, Reader, blocks, matches, session, shell_commands

DOCUMENTS = ("README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")))

#: The workers that the documents mention.
WORKERS = {"README.md": ("w1", "w2")}
USUAL_WORKERS = ("w1", "box")

#: Commands that can't be run here, by document, with the reason.
NOT_RUN: dict[str, dict[str, str]] = {
    "README.md": {
        "make demo": "test_demo runs what it runs",
        "make test": "this is part of it",
        "make compare": "it takes minutes; test_run_as_local does less of it",
        "make faults": "it takes an hour",
        "make fuzz": "it takes five minutes",
        "make simulate": "it takes ten minutes",
        "twistd -n scheduler -c etc/scheduler.toml": "the daemons here run with these very files, at free ports",
        "twistd -n worker -c etc/worker.toml": "the daemons here run with these very files, at free ports",
    },
    "docs/cli.md": {
        "schedctl ps --on box --watch": "it needs a terminal, and does not end",
        "schedctl drain --wait box && ssh box reboot": "it reboots a machine",
    },
    "docs/operations.md": {
        "schedctl drain --wait box && ssh box reboot; schedctl resume box": "it reboots a machine",
        "python3 -m venv /opt/scheduler && /opt/scheduler/bin/pip install '.[postgresql]'": (
            "it installs on this machine"
        ),
        "/opt/scheduler/bin/twistd --help >/dev/null": "what the line before it installs is not there",
        "git pull && /opt/scheduler/bin/pip install '.[postgresql]' && /opt/scheduler/bin/twistd --help >/dev/null": (
            "it installs on this machine"
        ),
        "systemctl restart scheduler": "it changes this machine",
        **dict.fromkeys(
            (
                "install -d -m 0755 /etc/scheduler",
                "useradd --system --user-group scheduler",
                "useradd --system --user-group scheduler-worker",
                "install -m 0640 -o root -g scheduler etc/scheduler.toml /etc/scheduler/scheduler.toml",
                "install -m 0640 -o root -g scheduler-worker etc/worker.toml /etc/scheduler/worker.toml",
                "install -m 0644 etc/systemd/scheduler.service /etc/systemd/system/ && "
                "systemctl enable --now scheduler",
                "install -m 0644 etc/systemd/scheduler-worker.service /etc/systemd/system/ && "
                "systemctl enable --now scheduler-worker",
                "install -m 0600 -o scheduler -g scheduler pgpass /etc/scheduler/pgpass",
                "ln -sf /opt/scheduler/bin/schedctl /usr/local/bin/",
                "touch /etc/scheduler/revoked.txt",
            ),
            "it changes this machine; test_documented checks it",
        ),
        **dict.fromkeys(
            (
                "install -m 0644 ~/ca.pem ~/scheduler.pem /etc/scheduler/",
                "install -m 0640 -o root -g scheduler ~/scheduler.key /etc/scheduler/ && rm ~/scheduler.key",
                "install -m 0644 ~/ca.pem ~/box7.pem /etc/scheduler/",
                "install -m 0640 -o root -g scheduler-worker ~/box7.key /etc/scheduler/ && rm ~/box7.key",
                "export SCHEDULER_URL=https://scheduler.example.com:3000 SCHEDULER_CA_FILE=/etc/scheduler/ca.pem",
                "export SCHEDULER_TOKEN=$(cat /var/lib/scheduler/admin.token)",
                "schedctl doctor --config /etc/scheduler/scheduler.toml",
                "schedctl run --on box7 -- hostname",
            ),
            "it needs another machine, or its files; test_walkthrough does it with daemons",
        ),
        **dict.fromkeys(
            (
                "scp lab-ca/ca.pem lab-ca/scheduler.pem lab-ca/scheduler.key root@head:",
                "scp lab-ca/ca.pem lab-ca/box7.pem lab-ca/box7.key root@box7:",
                "scp lab-ca/ca.pem lab-ca/box8.pem lab-ca/box8.key root@box8:",
            ),
            "there is no such machine",
        ),
        **dict.fromkeys(
            (
                "runuser -u postgres -- createuser --pwprompt scheduler",
                "runuser -u postgres -- createdb --owner scheduler scheduler",
            ),
            "it needs a server",
        ),
        "twistd worker -c /etc/scheduler/worker.toml --new-id": "the folder of the worker here is in use, and no copy; "
        "test_copied_folders does it",
        "runuser -u scheduler -- /opt/scheduler/bin/python -m scheduler.store.copying "
        "sqlite:////var/lib/scheduler/scheduler.db "
        "'postgresql+psycopg://scheduler@HOST/scheduler?passfile=/etc/scheduler/pgpass'": (
            "it needs a server; test_store_copying does it with one"
        ),
    },
}

#: Exit codes of scripts that are supposed to fail, by document and first command.
EXIT_CODES: dict[str, dict[str, int]] = {}

#: Arguments of programs, by document.
ARGUMENTS = {"docs/api.md": ('{"worker":"w1","shell":"echo hi; echo oops >&2"}',)}


def sample(name: str, replaced: dict[str, str]) -> str:
    """A file of etc/ with other values."""
    text = (ROOT / "etc" / name).read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document(name: str, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """Every command of it runs, and prints the shown output."""
    text = (ROOT / name).read_text()
    not_run = NOT_RUN.get(name, {})
    if not any(block.language in RUN for block in blocks(text)):
        assert not not_run
        pytest.skip("it has no commands")
    for program in ("curl", "jq", "sqlite3"):
        if program in text and shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    scheduler = daemons("scheduler", sample("scheduler.toml", {":50000": ":0", ":3000": ":0"})).start()
    grpc, http = scheduler.endpoints["grpc"], scheduler.endpoints["http"]
    workers = WORKERS.get(name, USUAL_WORKERS)
    for called in workers:
        values = {
            ":30000": ":0",
            "127.0.0.1:50000": grpc,
            '# name = "w1"': f'name = "{called}"',
            '# labels = {gpu = "a100", rack = "7"}': 'labels = {gpu = "1"}',
            "# env = {": f'env = {{PATH = "{tools(tmp_path)}:{os.environ["PATH"]}", ',
            'scripts_dir = "scripts"': f'scripts_dir = "{ROOT}/etc/scripts"',
        }
        worker = daemons("worker", sample("worker.toml", values), called).start()
    with Client(f"http://{http}") as client:
        wait_until(lambda: sum(each.state == "online" for each in client.workers()) == len(workers), "all are online")
        ended = client.run(["true"], worker="w1").job.id
    reader = Reader(
        name,
        text,
        folder(tmp_path),
        {**environment(tmp_path, http), "ID": ended},
        {
            "127.0.0.1:3000": http,
            "localhost:3000": http,
            "Client()": f'Client("http://{http}")',
            "3f0c9a12": ended[:8],
            "/backup/": f"{tmp_path}/",
            "/var/lib/scheduler/": f"{scheduler.state}/",
            "/etc/scheduler/scheduler.toml": str(scheduler.file),
            "/etc/scheduler/worker.toml": str(worker.file),
        },
        not_run,
        EXIT_CODES.get(name, {}),
        ARGUMENTS.get(name, ()),
    )
    if found := list(reader.read()):
        pytest.fail("\n\n".join(found), pytrace=False)
    assert reader.left_out == not_run.keys()


def tools(tmp_path: Path) -> Path:
    """Users' programs that the documents run on workers."""
    made = tmp_path / "tools"
    if not made.exists():
        made.mkdir()
        for name, line in (("make", 'echo "$0 $*"'), ("python", "sleep 600")):
            (made / name).write_text(f"#!/bin/sh\n{line}\n")
            (made / name).chmod(0o755)
    return made


def folder(tmp_path: Path) -> Path:
    """The reader's folder, which looks like a checkout."""
    made = tmp_path / "checkout"
    made.mkdir()
    (made / "etc").symlink_to(ROOT / "etc")
    (made / "src").mkdir()
    return made


def environment(tmp_path: Path, http: str) -> dict[str, str]:
    """The environment of a user who has just installed the package, with a scheduler at that address."""
    home = tmp_path / "home"
    for completions in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (home / completions).mkdir(parents=True)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("SCHEDULER_", "XDG_"))}
    path = f"{BIN}:{os.environ['PATH']}"
    return {**ours, "HOME": str(home), "PATH": path, "SCHEDULER_URL": f"http://{http}", "COLUMNS": "120"}


class TestReader:
    """A difference between a document and the real behaviour is found."""

    @staticmethod
    def read(tmp_path: Path, document: str, not_run: dict[str, str] | None = None) -> list[str]:
        environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        reader = Reader("x.md", document, tmp_path, environ, {"HERE": "there"}, not_run or {}, {"exit 4": 4}, ["a"])
        return list(reader.read())

    def test_true(self, tmp_path: Path) -> None:
        """A true document causes no complaint."""
        session = (
            "$ X=1; echo HERE\nHERE\n$ for i in 1 2; do\n>   echo $i$X >&2\n> done\n11\n21\n"
            "$ sh -c 'exit 3'\n$ echo $?\n3\n$ cat\n"
        )
        indented = "  ```console\n  $ echo $X 0123abcd 5.3s\n  1 89efab45 1m 2s\n  ```\n"
        script = "echo never  # really\nif true; then\n  true\nfi\n"
        document = (
            f"Text.\n\n```console\n{session}```\n\n{indented}\n```sh\n{script}```\n\n```\nexit 4\n```\n"
            "```bash\nfalse\n[ $1 = a ]\n```\n```python\nprint(1)\n```\n```toml\nx = \n```\n"
        )
        assert self.read(tmp_path, document, {"echo never": "x"}) == []

    @pytest.mark.parametrize(
        "text",
        [
            "```console\n$ echo 1\n2\n```",
            "```console\n$ echo 1\n```",
            "```console\n$ true\n1\n```",
            "```console\n$ echo 1; echo 2\n1\n```",
            "```console\n$ nonesuch\n```",
            "```console\necho 1\n```",
            "```console\n$ exit\n```",
            "```python\nraise SystemExit(1)\n```",
            "```sh\nfalse\ntrue\n```",
            "```bash\n[ -z $1 ]\n```",
            "```zsh\ntrue\n```",
            "```sh\nfalse | true\n```",
            "```\nfalse\n```",
            "```\nif true\n```",
            "```\nuseradd --help\n```",
            """```sh\necho '{"type": "/problems/internal"}'\n```""",
        ],
    )
    def test_untrue(self, tmp_path: Path, text: str) -> None:
        """A difference is reported with its place."""
        (complaint,) = self.read(tmp_path, f"Text.\n\n{text}\n")
        assert complaint.startswith("x.md:4: "), complaint

    def test_what_may_differ(self) -> None:
        """Ids, times, durations and spaces may differ; numbers and words may not."""
        for shown, printed in (
            ("ID        RAN\n0123abcd  1s", "ID RAN\n89abcdef   12.5s  \n"),
            ("at 2024-05-01 22:00:00 +0000", "at 2026-11-28 14:52:23 +0100"),
            ('{"created_at": "2024-05-01T22:00:00.5Z"}', '{"created_at": "2026-11-28T14:52:23Z"}'),
            ("a ... d", "a b\nc d"),
        ):
            assert matches(shown, printed)
        for shown, printed in (("exit code 3", "exit code 4"), ("a", "a b"), ("a\nb", "a b"), ("", "x"), ("5s", "5")):
            assert not matches(shown, printed)

    def test_parts(self) -> None:
        """Commands in sessions and scripts are split correctly."""
        (block,) = blocks("# A\n\n```console\n$ a\n> b\n1\n> 2\n$ c\n```\n")
        assert session(block) == [Command("a\nb", "1\n> 2"), Command("c", "")]
        script = "a \\\n  b\n\n# c\nwhile d; do\n  e\ndone\ncat <<x\n\n# f\nx\n"
        assert shell_commands(Block("sh", script, 1)) == ["a \\\n  b", "while d; do\n  e\ndone", "cat <<x\n\n# f\nx"]
        with pytest.raises(Differs):
            shell_commands(Block("sh", "while true; do\n", 1))
