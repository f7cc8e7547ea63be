"""A PostgreSQL server of the tests' own, from the system's package."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import typing as t

import pytest

from .servers import end
from .servers import free_port
from .servers import wait_until

#: The user that Debian's package makes; the server refuses to run as root.
_USER = "postgres"


def _program(name: str) -> str | None:
    """Return the path of a server program; Debian keeps them off the ``PATH``."""
    places = sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(places[-1]) if places else shutil.which(name)


@contextlib.contextmanager
def postgres_server() -> t.Iterator[int]:
    """Run a server on the loopback interface, for the user ``test``; yield its port."""
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    user = _USER if os.geteuid() == 0 else None
    folder = tempfile.mkdtemp(prefix="pg-")
    try:
        if user is not None:
            shutil.chown(folder, user)
        data, port = f"{folder}/data", free_port()
        make = [initdb, "-D", data, "-U", "test", "-A", "trust", "--no-sync"]
        subprocess.run(
            make, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL
        )
        serve = [postgres, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-F"]
        with open(f"{folder}/log", "wb") as log:
            server = subprocess.Popen(
                [*serve, "-k", folder], cwd=folder, user=user, stderr=log
            )
        try:
            wait_until(lambda: _answers(port, server))
            yield port
        finally:
            # At once: connections that tests left open are not waited for.
            end(server, signal.SIGINT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def url_of(port: int) -> str:
    """Return SQLAlchemy's URL of a server at *port*."""
    return f"postgresql+psycopg://test@127.0.0.1:{port}/postgres"


def _answers(port: int, server: subprocess.Popen[bytes]) -> bool:
    import psycopg

    assert server.poll() is None, "PostgreSQL has ended"
    try:
        psycopg.connect(f"host=127.0.0.1 port={port} user=test dbname=postgres").close()
    except psycopg.OperationalError:
        return False
    return True
