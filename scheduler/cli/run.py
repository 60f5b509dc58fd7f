"""``schedctl run``: runs a job from start to end as if it were local."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from attrs import define

from scheduler.cli.completion import complete_file, complete_folder, complete_worker
from scheduler.cli.failures import MAY_HAVE_RUN, Failure
from scheduler.cli.interrupts import GaveUp, Interrupts, Left
from scheduler.cli.naming import of_worker
from scheduler.cli.options import DURATION, KEY, SIZE, KeyValue, seconds
from scheduler.cli.outcome import outcome
from scheduler.cli.session import Session, pass_session
from scheduler.cli.status import Status
from scheduler.cli.streams import abandon_stdout, read_stdin, room_for, stdin_offered
from scheduler.cli.watch import Watch
from scheduler.client import ApiProblem, Client, ClientError, Job

_EXAMPLES = """\b
Examples:
  schedctl run --on box -- make test
  schedctl run -s 'echo hi && ls'
  schedctl run -l gpu=1 --detach -- python train.py
  schedctl run --on box --env DEBUG=1 --cwd /srv/app --timeout 10m -- ./check.sh -v
  tar c src | schedctl run --on box -- tar tv
  schedctl run --script deploy.sh -- staging

\b
Exit codes:
  0        the job succeeded
  128+n    a signal ended it, or it was stopped
  124      it ran into --timeout
  126 127  its command can't be run there; was not found there
  125      schedctl failed and nothing was started: the same command can be repeated
  121      the job may have run, what became of it is not known
  else     the job's own exit code
For 121 and 124 to 127 a sentence on stderr says which it was; without one it is the job's own.
"""


@click.command(
    "run",
    epilog=_EXAMPLES,
    # Everything after COMMAND belongs to it, including options.
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--on", "worker", metavar="WORKER", shell_complete=complete_worker, help="The worker to run it on, by name or id."
)
@click.option(
    "-l", "--selector", type=KeyValue(), multiple=True, help="Any worker with this label; may be given several times."
)
@click.option("-s", "--shell", metavar="LINE", help="A line for /bin/sh -c, in place of COMMAND.")
@click.option(
    "--script",
    metavar="FILE",
    shell_complete=complete_file,
    help="Send this script and run it by its #! line, with ARGS if there are any; - reads it from stdin.",
)
@click.option(
    "-e", "--env", metavar="K=V", multiple=True, help="A variable of its environment; K alone passes on its value here."
)
@click.option(
    "--cwd", metavar="DIR", shell_complete=complete_folder, help="The folder it runs in [an empty one of its own]."
)
@click.option("--timeout", type=DURATION, help="Stop the job after this time; it has then timed_out.")
@click.option("-d", "--detach", is_flag=True, help="Print the id of the job, and do not wait for its end.")
@click.option("-n", "--no-stdin", is_flag=True, help="Do not pass on stdin, even if it is a pipe or a file.")
@click.option("--queue-timeout", type=DURATION, help="How long it may wait for a free slot [1h; 0 with --on].")
@click.option("--priority", type=int, help="Waiting jobs with a higher priority start first [0].")
@click.option("--retry", type=click.IntRange(1), metavar="N", help="Run the job again if it failed, up to N times.")
@click.option("--retry-delay", type=DURATION, help="The time before each further run [0].")
@click.option("--label", "labels", type=KeyValue(), multiple=True, help="A label of the job, for filters.")
@click.option("--stop-grace", type=DURATION, help="The time between the signal of a stop and KILL [10s].")
@click.option("--stop-signal", metavar="SIGNAL", help="The signal of a stop [SIGTERM].")
@click.option("--stop-mode", type=click.Choice(["tree", "main"]), help="The receiver of that signal [tree].")
@click.option("--linger", type=DURATION, help="How long its other processes may outlive its main one [5s].")
@click.option("--umask", metavar="OCTAL", help="Its umask [the worker's].")
@click.option("--merge-stderr", is_flag=True, help="Write its stderr into its stdout, in order.")
@click.option("--output-limit", type=SIZE, help="End the job, as failed, when its output is larger.")
@click.option(
    "--unattended-timeout",
    type=DURATION,
    help="Stop the job when no client has followed it or waited for it for this time.",
)
@click.option("--key", type=KEY, help="An Idempotency-Key: the same command with the same key runs once.")
@click.option(
    "--patience",
    type=DURATION,
    default="10m",
    show_default=True,
    help="How long to wait for a scheduler, or a worker, that can't be reached while the job runs.",
)
@click.argument(
    "command", metavar="[--] COMMAND [ARGS]...", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_file
)
@pass_session
def command(session: Session, /, command: tuple[str, ...], detach: bool, no_stdin: bool, **options: Any) -> int:
    """Run COMMAND on a worker, as if it ran here. What follows COMMAND belongs to it, options too.

    Its stdout and stderr are ours, its exit code is ours. Without --on and -l any worker with a free slot takes it. A
    pipe or file on stdin becomes its stdin, up to about 750 KB; it is read to its end before the job starts.

    Ctrl-C stops the job and waits for its end; a second Ctrl-C leaves it running.
    """
    key, patience = options.pop("key"), seconds(options.pop("patience"))
    fields = fields_of(command, options, os.environ)
    with Status() as status:
        if options["script"] == "-":
            fields["script"] = _text(_stdin(fields, status), "the script")
        elif not no_stdin and stdin_offered() and (data := _stdin(fields, status)):
            fields["stdin"] = data
        return Run(session, status, patience, fields, key, detach).run()


def fields_of(command: tuple[str, ...], options: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The API's fields for a command line. Raises ``Failure`` if the command line contradicts itself."""
    options = dict(options)
    if options["worker"] and options["selector"]:
        raise Failure("--on and -l can't be given together", "--on names a worker, -l takes any that has the label.")
    given = [name for name in ("shell", "script") if options[name] is not None]
    if len(given) == 2 or (given == ["shell"] and command) or not (given or command):
        raise Failure(
            "exactly one of COMMAND, -s LINE and --script FILE must be given", "`schedctl run --help` shows examples."
        )
    fields: dict[str, Any] = {}
    script, retry, delay = options.pop("script"), options.pop("retry"), options.pop("retry_delay")
    if script is not None:
        fields["args"] = list(command)
        if script != "-":
            fields["script"] = _text(_file(script), script)
    elif command:
        fields["command"] = list(command)
    selector = dict(options.pop("selector"))
    if not options["worker"]:
        fields["selector"] = selector
    if delay is not None and retry is None:
        raise Failure("--retry-delay needs --retry", "Give both.")
    if retry is not None:
        fields["retry"] = {"attempts": retry, **({} if delay is None else {"delay": delay})}
    fields["env"] = dict(_variable(text, environ) for text in options.pop("env"))
    fields["labels"] = dict(options.pop("labels"))
    for name, value in options.items():
        if value is not None and value is not False:
            fields[name] = value
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Failure(
            "the command line is not UTF-8, and a job can be given nothing else", "Pass such bytes by stdin."
        ) from None
    return {name: value for name, value in fields.items() if value != {} or name == "selector"}


def _variable(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and name not in environ:
        raise Failure(f"--env {name}: there is no such variable here", f"Give its value: --env {name}=...")
    return name, value if equals else environ[name]


def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Failure(f"{name} can't be read: {error.strerror}", "Give the path of a script, or - for stdin.") from None


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Failure(f"{name} is not UTF-8", "A script is text; run a program by its path on the worker.") from None


def _stdin(fields: Mapping[str, Any], status: Status) -> bytes:
    return read_stdin(
        room_for(fields), lambda: status.note("reading stdin to its end before the job starts; -n passes none of it on")
    )


@define(eq=False)
class Run:
    """Runs a job, from its submission to the exit code."""

    _session: Session
    _status: Status
    _patience: float
    #: The job, as the API's fields, and its idempotency key.
    _fields: Mapping[str, Any]
    _key: str | None
    _detach: bool
    _job_id: str | None = None

    def run(self) -> int:
        """Run the job, and return the exit code. Raises ``Failure`` if the outcome is not known."""
        new_client = partial(self._session.client, waits=True, on_trouble=None)  # its ``Status`` reports troubles
        try:
            with Interrupts(self._status, new_client) as interrupts:
                watch = Watch(self._status, interrupts, self._patience, new_client)
                with new_client(patience=self._patience, on_trouble=watch.trouble) as client:
                    return self._watched(client, watch, interrupts)
        except Left:
            if self._job_id is None:
                raise self._unresolved(
                    "interrupted before the scheduler answered, the job may have been started"
                ) from None
            raise self._unresolved(f"job {self._job_id} is left as it is, it was asked to stop") from None

    def _watched(self, client: Client, watch: Watch, interrupts: Interrupts) -> int:
        try:
            self._job_id, job = self._submitted(client)
            interrupts.job(self._job_id)
            if self._detach and not interrupts.stopping:
                return self._detached(self._job_id, job)
            if job is None:
                self._status.note("waiting for what becomes of it")
            job = watch.until_end(client, self._job_id, job)
        except GaveUp:
            why = watch.job.reason if watch.job is not None else None
            raise self._unresolved(f"job {self._job_id} is unknown, it may still run: {why}") from None
        except BrokenPipeError:
            self._stop(client)
            raise
        except ClientError as error:
            if self._job_id is None:
                raise
            raise self._unresolved(
                f"job {self._job_id} can't be watched any longer, it may still run: {error}"
            ) from error
        except OSError as error:
            abandon_stdout()  # the rest of its buffer would fail again, as if nothing had been started
            raise self._unresolved(
                f"the output of job {self._job_id} can't be written here, and it goes on: {error.strerror}"
            ) from error
        return self._ended(job, watch.lost)

    def _submitted(self, client: Client) -> tuple[str, Job | None]:
        """Submit the job. Returns its id, and the job unless the start was not answered."""
        try:
            with of_worker(client, self._fields.get("worker"), self._session.connection.url):
                job = client.submit(key=self._key, **self._fields)
        except ClientError as error:
            if error.job_id is None or not error.started:
                raise
            if isinstance(error, ApiProblem) and error.type == "job-removed":
                raise  # no job exists that could be watched
            self._status.note(str(error))
            return error.job_id, None
        return job.id, job

    def _detached(self, job_id: str, job: Job | None) -> int:
        """Print the job's id. The exit code says only whether the job was started, or will be."""
        click.echo(job_id)
        if job is None:
            return MAY_HAVE_RUN
        return self._ended(job, None) if job.final and job.started_at is None else 0

    def _ended(self, job: Job, lost: str | None) -> int:
        code, sentence = outcome(job)
        if lost is not None and code == 0:
            code, sentence = MAY_HAVE_RUN, f"job {job.id} succeeded, and its output could not be had: {lost}"
        if sentence is not None:
            self._status.note(sentence)
        return code

    def _stop(self, client: Client) -> None:
        """Stop the job, because its output has no reader. A local program would end by SIGPIPE."""
        assert self._job_id is not None
        try:
            client.stop(self._job_id)
        except ClientError as error:
            raise self._unresolved(
                f"nobody reads the output any more, and job {self._job_id} can't be stopped: {error}"
            ) from error

    def _unresolved(self, message: str) -> Failure:
        """Make the failure for a job whose outcome is not known here."""
        if self._job_id is None:
            return Failure(message, "`schedctl ps` shows the jobs that run.", MAY_HAVE_RUN)
        step = (
            f"`schedctl logs -f {self._job_id}` shows its output, `schedctl wait {self._job_id}` gives its exit code, "
            f"`schedctl stop {self._job_id}` stops it."
        )
        return Failure(message, step, MAY_HAVE_RUN)
