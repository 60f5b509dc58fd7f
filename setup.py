"""The package: its metadata, and the step that makes ``scheduler/pb`` from ``proto/`` whenever it is built."""

import re
import shutil
from pathlib import Path

from grpc_tools import protoc
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def generate_stubs() -> None:
    """Write ``scheduler/pb/*_pb2*`` beside the hand-made ``__init__.py``; git ignores them."""
    protos = sorted(str(proto) for proto in (ROOT / "proto").glob("*.proto"))
    out = [f"--{kind}_out={ROOT}" for kind in ("python", "pyi", "grpc_python")]
    # Mapping proto/ to scheduler/pb makes the stubs import each other as scheduler.pb.x.
    if protoc.main(["protoc", f"-Ischeduler/pb={ROOT / 'proto'}", *out, *protos]) != 0:
        raise SystemExit("protoc could not make the stubs")


class BuildWithStubs(build_py):
    """``build_py`` that finds the stubs where it looks for every other module: in the source folder."""

    def run(self) -> None:
        """Generate, then copy as usual."""
        generate_stubs()
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # or a module deleted since the last build comes back
        super().run()


setup(
    name="scheduler-gateway",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "scheduler" / "__init__.py").read_text())[1],
    description="One HTTP API in front of all your machines: start, stop, query and watch jobs with curl.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Distributed Computing",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["scheduler", "scheduler.*"]), "scheduler.etc", "twisted.plugins"],
    # No __init__.py in twisted_plugins/: the wheel would ship Twisted's own file.
    package_dir={"scheduler.etc": "etc", "twisted.plugins": "twisted_plugins"},
    package_data={
        "scheduler": ["py.typed"],
        "scheduler.pb": ["*.pyi"],
        # Messages point to the samples; see scheduler/daemon/samples.py.
        "scheduler.etc": ["*.toml", "scripts/*", "systemd/*.service"],
    },
    cmdclass={"build_py": BuildWithStubs},
    entry_points={"console_scripts": ["schedctl = scheduler.cli.main:main"]},
    install_requires=[
        "attrs>=23.2",
        "click>=8.2",
        "cryptography>=42",
        # Stubs refuse a grpcio older than the grpcio-tools that made them (pyproject.toml), and a protobuf older
        # than the one inside it.
        # scheduler.rpc.admission uses private parts of it, which are compared before a later one is allowed.
        "grpcio>=1.76.0,<1.86",
        "grpcio-health-checking>=1.76.0",
        "grpcio-reflection>=1.76.0",
        "protobuf>=6.33",
        "klein>=24.8",
        # The first in which the ciphers of TLS 1.3 can be chosen.
        "pyOpenSSL>=25.3",
        "rich>=13",
        "SQLAlchemy>=2.1",
        "toml>=0.10.2",
        "treq>=24.9",
        # With [tls], or every start of any twistd complains about a half-installed pyOpenSSL. Earlier versions have
        # request smuggling and denial of service in twisted.web.
        "Twisted[tls]>=26.4",
        "urllib3>=2",
        "werkzeug>=3.0",
        "zope.interface>=6.0",
    ],
    extras_require={
        "postgresql": ["psycopg[binary]>=3.2"],
        "test": [
            "build>=1.2",
            "grpcio-tools==1.76.0",
            "hypothesis>=6.100",
            "psycopg[binary]>=3.2",
            "pytest>=8",
            "pytest-twisted>=1.14",
            "pytest-xdist>=3.6",
            "setuptools>=77",
            "trustme>=1.2",
        ],
        "types": [
            "grpc-stubs>=1.53",
            "mypy>=2.4,<2.5",
            "mypy-zope>=1.0.17",
            "types-protobuf>=6",
            "types-toml>=0.10.8",
        ],
    },
)
