"""The built packages, and that they are the ones that were tested."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest

import scheduler
from tests.system.conftest import BIN, ROOT

SOURCES = (
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "SECURITY.md",
    "LICENSE",
    "Makefile",
    "tox.ini",
    "scheduler",
    "proto",
)
FOLDERS = ("twisted_plugins", "etc", "docs", "examples", "benchmarks", "changelog.d", "tests")


def check_sdist(built: Path) -> None:
    (archive,) = built.glob("scheduler_gateway-*.tar.gz")
    with tarfile.open(archive) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {
        *(
            "proto/scheduler.proto",
            "proto/worker.proto",
            "twisted_plugins/scheduler_plugin.py",
            "scheduler/pb/__init__.py",
        ),
        *("etc/scheduler.toml", "etc/worker.toml", "etc/systemd/scheduler.service", "LICENSE", "Makefile", "tox.ini"),
        *("SECURITY.md", "docs/security.md"),
        *("docs/configuration.md", "examples/demo.py", "benchmarks/__main__.py", "tests/system/test_packaging.py"),
    } <= names
    assert [name for name in names if "_pb2" in name or name.endswith(".pyc")] == []


def check_wheel(built: Path) -> None:
    (archive,) = built.glob("scheduler_gateway-*-py3-none-any.whl")
    with zipfile.ZipFile(archive) as wheel:
        names = set(wheel.namelist())
    stubs = {f"scheduler/pb/{name}" for name in ("scheduler_pb2", "worker_pb2")}
    assert {f"{stub}{suffix}" for stub in stubs for suffix in (".py", ".pyi", "_grpc.py")} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "scheduler").rglob("*.py")} <= names
    assert "scheduler/py.typed" in names
    samples = {path.relative_to(ROOT) for path in (ROOT / "etc").rglob("*") if path.is_file()}
    assert {f"scheduler/{path}" for path in samples} <= names
    assert [name for name in names if name.startswith("twisted/")] == ["twisted/plugins/scheduler_plugin.py"]
    assert {name.split("/")[0] for name in names} - {"scheduler", "twisted"} == {
        f"scheduler_gateway-{scheduler.__version__}.dist-info"
    }


def test_built(tmp_path: Path) -> None:
    """The sdist has everything that is needed for a build and for reading, and nothing generated.

    The wheel, built from the sdist, has stubs, types and the plugin, and no file of Twisted's.
    """
    for name in (*SOURCES, *FOLDERS):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*_pb2*", "__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    check_sdist(tmp_path / "dist")
    check_wheel(tmp_path / "dist")


def test_version_in_one_place() -> None:
    """The distribution has the package's version."""
    assert version("scheduler-gateway") == scheduler.__version__


def test_requirements_fit_the_generator() -> None:
    """Stubs refuse libraries older than their generator; the required versions are not older."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    (generator,) = (need.removeprefix("grpcio-tools==") for need in build if need.startswith("grpcio-tools=="))
    needed = [need for need in requires("scheduler-gateway") or [] if "extra ==" not in need]
    (minimum,) = (re.search(r">=([0-9.]+)", need)[1] for need in needed if re.match(r"grpcio[<>=]", need))
    assert minimum == generator
    stub = (Path(scheduler.__file__).parent / "pb/worker_pb2.py").read_text()
    made_for = tuple(map(int, re.search(r"Protobuf Python Version: ([0-9.]+)", stub)[1].split(".")))
    (minimum,) = (need.removeprefix("protobuf>=") for need in needed if need.startswith("protobuf>="))
    assert tuple(map(int, minimum.split("."))) >= made_for


def test_no_http2() -> None:
    """No dependency requires h2: with it installed twisted.web would offer HTTP/2, and its floods."""
    assert [need for need in requires("scheduler-gateway") or [] if re.match(r"(h2|Twisted.*http2)\b", need)] == []


def test_twistd_knows_both(tmp_path: Path) -> None:
    """``twistd --help`` lists the scheduler and the worker."""
    done = subprocess.run(
        [BIN / "twistd", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert re.search(r"^ +scheduler +One HTTP API", done.stdout, re.MULTILINE)
    assert re.search(r"^ +worker +Runs jobs", done.stdout, re.MULTILINE)


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="only tox promises an installed package")
def test_installed_package_is_tested() -> None:
    """These suites import the package from site-packages."""
    assert Path(scheduler.__file__).is_relative_to(sysconfig.get_path("purelib"))


@pytest.mark.parametrize("unit", ["scheduler.service", "scheduler-worker.service"])
def test_systemd_units(unit: str, tmp_path: Path) -> None:
    """systemd accepts the units, with real paths in place of the sample's."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    copy = tmp_path / unit
    copy.write_text((ROOT / "etc/systemd" / unit).read_text().replace("/opt/scheduler/bin", str(BIN)))
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", copy],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
