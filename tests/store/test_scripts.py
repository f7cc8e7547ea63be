"""Rules that hold for every script, whatever it does."""

from __future__ import annotations

import pathlib
import re

import pytest
from redis.crc import key_slot

import flask_durable.store
from flask_durable.redis.scripts import load
from flask_durable.store.directory import Directory
from flask_durable.store.run_store import after

from .kit import Kit

ROOT = pathlib.Path(flask_durable.store.__file__).parent
FOLDER = ROOT / "lua"
NAMES = sorted(path.stem for path in FOLDER.glob("*.lua") if path.stem != "common")

#: The scripts that have to work although the server's memory is full (DESIGN 5).
FREEING = ("lease_renew", "step_commit", "run_suspend", "run_finish", "barrier")

every_script = pytest.mark.parametrize("name", NAMES)


def code_of(name: str) -> str:
    """Return a script's text without its comments."""
    lines = (FOLDER / f"{name}.lua").read_text("utf-8").splitlines()
    return "\n".join(re.sub(r"--.*|^#!.*", "", line) for line in lines)


def header_of(name: str) -> str:
    """Return the comment that a script begins with."""
    lines = (FOLDER / f"{name}.lua").read_text("utf-8").splitlines()
    if lines[0].startswith("#!"):
        lines = lines[1:]
    end = next(i for i, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(lines[:end])


@every_script
def test_a_header_says_what_a_script_takes_answers_and_serves(name: str) -> None:
    header = header_of(name)

    assert re.search(r"^-- KEYS\[1\] tag", header, re.M)
    assert re.search(r"^-- ARGV", header, re.M)
    assert re.search(r"^-- Reply ", header, re.M)
    assert re.search(r"\(G\d+(, G\d+)*\)", header)


@every_script
def test_the_header_knows_every_argument(name: str) -> None:
    header = header_of(name)
    documented = {int(number) for number in re.findall(r"ARGV\[(\d+)", header)}

    used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", code_of(name))}

    assert used <= documented


@every_script
def test_a_script_neither_looks_for_keys_nor_scans(name: str) -> None:
    commands = set(re.findall(r"redis\.p?call\('(\w+)'", code_of(name)))

    assert not commands & {"KEYS", "SCAN", "HSCAN", "ZSCAN", "SSCAN", "RANDOMKEY"}
    unbounded = {"HKEYS", "HVALS", "SMEMBERS", "ZRANGE", "LRANGE"}
    if name == "run_log":  # cuts the list that it reads to 16 KiB itself
        unbounded.remove("LRANGE")
    assert not commands & unbounded
    # The only hash that is read whole is a run's record, which has a fixed size.
    reads = re.findall(r"'HGETALL', (.*?)\)\)", code_of(name))
    assert set(reads) <= {"run_key(id", "paths_key(name"}


@every_script
def test_a_range_is_bounded(name: str) -> None:
    ranges = re.findall(r"'Z(?:REV)?RANGEBY(?:SCORE|LEX)'", code_of(name))

    assert len(ranges) == code_of(name).count("'LIMIT'")


@every_script
def test_the_clock_is_read_once(name: str) -> None:
    code = code_of(name)

    assert code.count("clock()") <= 1
    assert "'TIME'" not in code


def test_the_clock_is_the_servers_and_is_in_one_place() -> None:
    common = code_of("common")

    assert common.count("'TIME'") == 1
    assert "os.time" not in common


@every_script
def test_flags_stand_on_the_first_line_that_the_server_is_given(name: str) -> None:
    text = (FOLDER / f"{name}.lua").read_text("utf-8")
    source = load("flask_durable.store", name).source

    assert text.count("#!") == source.count("#!") <= 1
    if "#!" in text:
        assert source.startswith("#!lua flags=allow-oom\n")
    if name in FREEING:
        assert "#!" in text


def test_creating_a_run_is_refused_where_memory_is_full() -> None:
    assert not load("flask_durable.store", "run_create").source.startswith("#!")


@every_script
def test_a_script_file_is_used(name: str) -> None:
    python = "".join(path.read_text("utf-8") for path in ROOT.glob("*.py"))

    assert f'"{name}"' in python


@every_script
def test_the_server_compiles_a_script_under_the_digest_we_call(
    kit: Kit, name: str
) -> None:
    script = load("flask_durable.store", name)

    assert kit.client.script_load(script.source) == script.digest


@pytest.mark.parametrize("partitions", [1, 3, 7])
def test_all_keys_of_a_run_are_in_the_slot_of_its_partition(
    url: str, partitions: int
) -> None:
    kit = Kit(url, partitions=partitions)
    runs = [_live(kit, number) for number in range(12)]
    Directory(kit.server, kit.keys).publish({"work": {"id": "work"}})

    slots = {key_slot(tag.encode()) for tag in kit.keys.tags}
    for key in kit.dump():
        assert key_slot(key.encode()) in slots
    for run_id in runs:
        own = {key_slot(key.encode()) for key in kit.mentions(run_id)}
        assert own == {key_slot(kit.tag(run_id).encode())}
    if partitions > 1:
        assert len({kit.tag(run_id) for run_id in runs}) > 1
    kit.close()


def _live(kit: Kit, number: int) -> str:
    """Take a run through most of what can happen to it."""
    run_id = kit.running(id=f"slot-{number:02}", timeout=60, start_timeout=30)
    kit.commit(run_id, "a")
    kit.suspend(run_id, "sleep", after(1), step="nap", payload="sleep null")
    kit.advance(2)
    kit.sweep(run_id=run_id)
    kit.claim(run_id, "t2")
    if number % 2:
        handler = (f"{run_id}.failure", "on_failure", "default")
        kit.finish(
            run_id, "t2", failed=True, outcome="{}", handler=handler, events=["{}"]
        )
    return run_id


def test_a_failure_handlers_run_shares_its_parents_partition(url: str) -> None:
    kit = Kit(url, partitions=16)

    for number in range(50):
        run_id = f"parent{number}"
        assert kit.tag(f"{run_id}.failure-2") == kit.tag(run_id)
    kit.close()


@pytest.mark.parametrize("runs", [1, 300])
def test_no_script_costs_more_among_many_runs(kit: Kit, runs: int) -> None:
    kit.server.repeats = False
    for _ in range(runs):
        other = kit.running(token="other")
        kit.commit(other, "a", "other")
    costs = _costs(kit, memos=1)

    assert costs == _expected_costs(kit)


def test_no_script_costs_more_with_many_memos(kit: Kit) -> None:
    kit.server.repeats = False

    assert _costs(kit, memos=400) == _expected_costs(kit)


def _expected_costs(kit: Kit) -> dict[str, int]:
    kit.client.flushdb()
    return _costs(kit, memos=1)


def _costs(kit: Kit, memos: int) -> dict[str, int]:
    """Count the commands that each script carries out in one run's life."""
    costs: dict[str, int] = {}

    def measure(name: str, call: object) -> None:
        assert callable(call)
        kit.client.config_resetstat()
        call()
        stats = kit.client.info("commandstats")
        ignored = ("evalsha", "eval", "config", "info", "script", "hgetall")
        # What a thread's first connection says.
        connecting = ("hello", "client", "select")
        costs[name] = sum(
            int(stat["calls"])
            for command, stat in stats.items()
            if not command.removeprefix("cmdstat_").startswith(ignored + connecting)
        )

    # The first of an hour sets when the hour's counts expire.
    kit.create(kit.new_run(id="first-of-its-hour"))
    run = kit.new_run()
    measure("create", lambda: kit.create(run))
    kit.confirm(f"run:{run.id}")
    measure("claim", lambda: kit.claim(run.id))
    for number in range(memos):
        kit.commit(run.id, f"step{number}")
    measure("commit", lambda: kit.commit(run.id, "one more"))
    measure("renew", lambda: kit.store.renew(kit.tag(run.id), [(run.id, "t1", 30)]))
    measure(
        "suspend",
        lambda: kit.suspend(
            run.id, "sleep", after(900), step="nap", payload="sleep null"
        ),
    )
    measure("sweep", lambda: kit.sweep())
    measure("cancel", lambda: kit.store.admin(run.id, "cancel"))
    measure("retry", lambda: kit.store.admin(run.id, "retry"))
    kit.claim(run.id, "t2")
    measure("finish", lambda: kit.finish(run.id, "t2", events=["{}"]))
    kit.advance(400 * 24 * 3600)
    kit.client.delete(f"{kit.keys.root}:leases")  # of the other runs
    measure("expire", lambda: kit.sweep())
    return costs
