"""``schedctl ca``: the certificates of a cluster. It works on files alone, and asks no scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click
from cryptography.x509 import BasicConstraints, Certificate, ExtensionNotFound, load_pem_x509_certificates

from scheduler.cli.failures import Failure, say
from scheduler.errors import Conflict, Invalid
from scheduler.security.authority import issue, make_authority, open_authority, write_pair
from scheduler.security.identities import Identity, Role
from scheduler.security.presented import Presented, expires_soon, presented, serial_text

P = ParamSpec("P")

#: Names of files that can't be those of a worker's pair.
_TAKEN = ("ca", Role.SCHEDULER.value)

_folder = click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=".",
    help="The folder of the authority and its pairs [this folder].",
)
_hosts = click.option(
    "--host",
    "hosts",
    metavar="HOST",
    multiple=True,
    help="A name or IP address by which others dial it; may be repeated.",
)
_renew = click.option("--renew", is_flag=True, help="Replace the pair; its hosts stay, if none are given.")


def _failing(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors of the authority into failures with a next step."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Invalid as error:
            step = "`schedctl ca init --cluster NAME` makes an authority." if error.field == "dir" else ""
            raise Failure(error.problem, step) from None
        except Conflict as error:
            raise Failure(str(error), "Choose another folder; `schedctl ca issue ... --renew` renews a pair.") from None
        except OSError as error:
            raise Failure(f"{error.filename} can't be read or written: {error.strerror}") from None

    return run


@click.group(
    "ca",
    epilog="\b\nExamples:\n"
    "  schedctl ca init --cluster lab --dir lab-ca\n"
    "  schedctl ca issue scheduler --host scheduler.example.com --dir lab-ca\n"
    "  schedctl ca issue worker box7 --host box7.example.com --dir lab-ca\n"
    "  schedctl ca issue worker box7 --renew --dir lab-ca\n"
    "  schedctl ca show --dir lab-ca\n",
)
def command() -> None:
    """Make and show the certificates of a cluster.

    The authority is a folder with ca.pem, which every machine gets, and ca.key, which stays there. Each pair that it
    issues is for one process, and says in its certificate which one that is.
    """


@command.command("init", epilog="\b\nExamples:\n  schedctl ca init --cluster lab --dir lab-ca\n")
@click.option("--cluster", metavar="NAME", required=True, help="The name of the cluster: a lower-case DNS label.")
@_folder
@_failing
def init(cluster: str, folder: Path) -> None:
    """Make an authority: ca.pem and ca.key, valid for ten years."""
    written = make_authority(folder, cluster, datetime.now(UTC))
    click.echo(f"{written} and {written.with_suffix('.key')} are the authority of cluster {cluster}.")
    click.echo("Whoever has the key can be every machine of the cluster: keep it off them, and back it up.")


@command.group(
    "issue",
    epilog="\b\nExamples:\n"
    "  schedctl ca issue scheduler --host scheduler.example.com --dir lab-ca\n"
    "  schedctl ca issue worker box7 --dir lab-ca\n",
)
def issue_group() -> None:
    """Make the pair of the scheduler or of a worker, valid for a year."""


@issue_group.command(
    "scheduler",
    epilog="\b\nExamples:\n  schedctl ca issue scheduler --host scheduler.example.com --host 10.0.0.1\n",
)
@_hosts
@_folder
@_renew
@_failing
def issue_scheduler(hosts: Sequence[str], folder: Path, renew: bool) -> None:
    """Make scheduler.pem and scheduler.key."""
    _issue(folder, Role.SCHEDULER, "", hosts, renew)


@issue_group.command(
    "worker",
    epilog="\b\nExamples:\n  schedctl ca issue worker box7 --host box7.example.com\n"
    "  schedctl ca issue worker box7 --renew\n",
)
@click.argument("name", metavar="NAME")
@_hosts
@_folder
@_renew
@_failing
def issue_worker(name: str, hosts: Sequence[str], folder: Path, renew: bool) -> None:
    """Make NAME.pem and NAME.key. NAME is [worker] name of that worker: a lower-case DNS label."""
    if name in _TAKEN:
        raise Invalid("name", f"{name!r} can't be the name of a worker: {name}.pem is another certificate")
    _issue(folder, Role.WORKER, name, hosts, renew)


def _issue(folder: Path, role: Role, name: str, hosts: Sequence[str], renew: bool) -> None:
    authority = open_authority(folder)
    identity = Identity(authority.cluster, role, name)
    file = name or role.value
    before = _replaced(folder / f"{file}.pem", identity) if renew else None
    if before is not None and not hosts:
        hosts = [host for host in (*before.dns_names, *before.addresses) if host != identity.dns_name]
    now = datetime.now(UTC)
    certificate, key = write_pair(folder, file, *issue(authority, identity, hosts, now), renew=renew)
    click.echo(f"{certificate} and {key} are the pair of {identity}.")
    click.echo(f"That machine needs them, and {folder / 'ca.pem'}.")
    if before is not None:
        click.echo(f"The one before has the serial {serial_text(before.serial)}, and stays valid unless it is revoked.")


def _replaced(path: Path, identity: Identity) -> Presented:
    """The certificate that is renewed. Raises ``Failure`` if it is not one of that identity."""
    (certificate, *_) = _read(path)
    facts = presented(certificate)
    if facts.identity != identity:
        raise Failure(f"{path} is the certificate of {facts.identity or 'no identity'}, not of {identity}")
    return facts


@command.command("show", epilog="\b\nExamples:\n  schedctl ca show box7.pem\n  schedctl ca show --dir lab-ca\n")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@_folder
@_failing
def show(files: Sequence[Path], folder: Path) -> None:
    """Show certificates: identity, hosts, serial and validity; of a folder, all *.pem in it."""
    found = list(files) or sorted(folder.glob("*.pem"))
    if not found:
        raise Invalid("dir", f"{folder} has no *.pem")
    now = datetime.now(UTC)
    for path in found:
        for certificate in _read(path):
            _show(path, certificate, now)


def _show(path: Path, certificate: Certificate, now: datetime) -> None:
    facts = presented(certificate)
    left = facts.ends - now
    lasts = f"{max(left.days, 0)} days left" if left.total_seconds() > 0 else "expired"
    click.echo(f"{path}")
    click.echo(f"  identity  {facts.identity or ('none: an authority' if _is_authority(certificate) else 'none')}")
    click.echo(f"  hosts     {', '.join((*facts.dns_names, *facts.addresses)) or 'none'}")
    click.echo(f"  serial    {serial_text(facts.serial)}")
    click.echo(f"  valid     {facts.begins:%Y-%m-%d %H:%M} to {facts.ends:%Y-%m-%d %H:%M} UTC, {lasts}")
    if expires_soon(facts.ends, now):
        step = "" if facts.identity is None else "; `schedctl ca issue ... --renew` renews it"
        say(f"schedctl: {path} {'has expired' if left.total_seconds() <= 0 else 'expires soon'}{step}")


def _is_authority(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except (ExtensionNotFound, ValueError):
        return False


def _read(path: Path) -> list[Certificate]:
    try:
        return load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise Invalid("file", f"{path} can't be read: {error.strerror}") from None
    except ValueError:
        raise Invalid("file", f"{path} holds no certificate in PEM form") from None
