"""Random sequences of operations, compared after each one with an oracle in memory.

The scripts are given a clock that only the test moves, so that times compare exactly
and both sides of every limit are reached. Every call is made twice (see ``kit``), and
any earlier call may come again much later.
"""

from __future__ import annotations

import copy
import typing as t
from collections import defaultdict

import pytest
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import rule
from hypothesis.stateful import RuleBasedStateMachine
from hypothesis.stateful import run_state_machine_as_test

from flask_durable.redis.exchange import Argument
from flask_durable.redis.exchange import execute
from flask_durable.redis.scripts import load

from .kit import dump
from .kit import Kit
from .kit import RepeatingServer
from .kit import unordered
from .oracle import FINAL
from .oracle import FINISHED
from .oracle import NAME
from .oracle import Oracle
from .oracle import Run
from .oracle_home import path_sets as some_path_sets

BEGIN = 1_700_000_000_000
LEASE = 30_000
RETENTION = 3_600_000
MOST_STEPS = 3
MOST_BYTES = 260
MOST_DISPATCHES = 3
DEFER = (30_000, 120_000)

#: The answers of a script that must not have changed anything.
REFUSALS = (
    *("lost", "cancelled", "no", "state", "missing", "exists", "interrupted"),
    *("ended", "orphan"),
)

SETS = some_path_sets(2)
RUNS = [f"r{number}" for number in range(4)]
#: The number of a run in a fitting state; from :data:`ANY` on, any run at all.
ANY = 14
choices = st.integers(0, ANY + 1)
#: Milliseconds and bytes that events are kept.
LOOK_BACK = 200_000
LOOK_BACK_SIZE = 220
path_sets = st.sampled_from(["", "", *SETS])
digests = st.sampled_from(["d1", "d2"])
queues = st.sampled_from(["default", "media"])
STEPS = ["a", "b c", "ü\n#2", "%d"]
#: Steps that have branches, and nothing else.
GROUPS = ["g", "h#2"]
MOST_BRANCHES = 9
steps = st.sampled_from(STEPS)
payloads = st.sampled_from(
    ["run 1", "", "x\ny z\n", "done t1 1\n", "☃" * 30, "x" * 150]
)
numbers = st.integers(0, 3)
#: The place in the list of known tokens; mostly the newest, which may own the run.
ages = st.sampled_from([0] * 12 + [1, 3])
events = st.lists(st.sampled_from(["e1", "e\n2"]), max_size=2)
durations = st.sampled_from([0, 1, 1_000, 10_000, 61_000])
advances = st.sampled_from(
    [1, 1_000, 5_000, 10_000, 30_000, 30_001, 60_000, 120_000, 3_600_000]
)


#: States in which what is done from outside has an effect.
FITTING = {
    "cancel": ("queued", "running", "suspended", "paused"),
    "timeout": ("queued", "running", "suspended", "paused"),
    "unstarted": ("queued", "suspended"),
    "orphaned": ("queued", "running", "suspended", "paused"),
    "resume": ("paused",),
    "retry": ("failed", "cancelled"),
}


class FrozenServer(RepeatingServer):
    """A connection whose scripts read a clock that stands still."""

    def set_clock(self, now: int) -> None:
        seconds, milliseconds = divmod(now, 1000)
        self.client.hset("clock", "seconds", str(seconds))
        self.client.hset("clock", "microseconds", str(milliseconds * 1000 + 999))

    def call(self, name: str, tag: str, *args: Argument) -> t.Any:
        reply = self._evaluate(name, tag, *args)
        if name != "sweep":
            before = dump(self.client)
            again = self._evaluate(name, tag, *args)
            assert unordered(again) == unordered(reply)
            assert dump(self.client) == before
        return reply

    def _evaluate(self, name: str, tag: str, *args: Argument) -> t.Any:
        source = load("flask_durable.store", name).source
        frozen = source.replace(
            "redis.call('TIME')",
            "redis.call('HMGET', 'clock', 'seconds', 'microseconds')",
        )
        return execute(self.client, "EVAL", frozen, 1, tag, *args)


class Model(RuleBasedStateMachine):
    """Runs, their owners and their outsiders."""

    #: Set by the test: where the server is.
    url: t.ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.kit = Kit(self.url)
        self.server = FrozenServer(self.url)
        self.oracle = Oracle(BEGIN)
        self.server.set_clock(BEGIN)
        self.tag = self.kit.keys.root
        self.tokens = ["none"]
        self.history: list[tuple[str, tuple[t.Any, ...]]] = []
        self.outcomes: dict[tuple[str, str], str] = {}

    def teardown(self) -> None:
        self.server.close()
        self.kit.close()

    # -- Calls ----------------------------------------------------------------------

    def call(self, name: str, *args: t.Any) -> t.Any:
        """Ask both, and compare their answers."""
        existed = args[0] in self.oracle.runs
        before = copy.deepcopy(view_of(self.oracle))
        runs = {*self.oracle.runs}
        expected = getattr(self.oracle, name)(*args)
        reply = self.server.call(name, self.tag, *args)
        if name == "run_claim" and reply[0] == "claimed":
            record = dict(zip(reply[1::2], reply[2::2], strict=True))
            stored = self.server.client.hgetall(f"{self.tag}:run:{args[0]}")
            assert record == stored
            reply = reply[:1]
        assert reply == expected
        for id in runs.difference(self.oracle.runs):
            self._is_gone(id)
        if name != "sweep" and name != "lease_renew" and isinstance(reply, list):
            refused = reply[0] in REFUSALS or (reply[0] == "old" and existed)
            if refused or reply[0] == "full":
                assert view_of(self.oracle) == before
        return reply

    def do(self, name: str, *args: t.Any) -> t.Any:
        self.history.append((name, args))
        return self.call(name, *args)

    def token(self, age: int) -> str:
        return self.tokens[max(len(self.tokens) - 1 - age, 0)]

    def new_token(self) -> str:
        self.tokens.append(f"t{len(self.tokens)}")
        return self.tokens[-1]

    def owner(self, run: str, age: int) -> str:
        """Return the owner's token, or one that was heard of before."""
        found = self.oracle.runs.get(run)
        if age == 0 and found is not None and found.token is not None:
            return found.token
        return self.token(age)

    def pick(self, choice: int, *statuses: str) -> str:
        """Return a run in one of *statuses*, as far as there is one."""
        known = sorted(self.oracle.runs)
        fitting = [id for id in known if self.oracle.runs[id].status in statuses]
        if choice >= ANY or not statuses:
            return [*known, "unknown"][choice % (len(known) + 1)]
        if not fitting and "running" in statuses:
            return self._claimed(choice)
        if not fitting and statuses == ("paused",):
            return self._paused(choice)
        if not fitting:
            return self._queued(choice)
        return fitting[choice % len(fitting)]

    def _claimed(self, choice: int) -> str:
        run = self.pick(choice, "queued")
        self.do("run_claim", run, self.new_token(), LEASE, MOST_DISPATCHES, "v1", BEGIN)
        return run

    def _paused(self, choice: int) -> str:
        run = self.pick(choice, "running")
        how = (LEASE, "pause", "0", "look", "", 0, "{}", MOST_STEPS, MOST_BYTES)
        self.do("run_suspend", run, self.owner(run, 0), *how)
        return run

    def _queued(self, choice: int) -> str:
        unknown = [id for id in RUNS if id not in self.oracle.runs]
        run = unknown[0] if unknown else RUNS[choice % len(RUNS)]
        if unknown:
            self._create(run, "", 0, 0, 0, "default")
        return run

    # -- Rules ------------------------------------------------------------------------

    @initialize(queue=queues)
    def a_first_run(self, queue: str) -> None:
        self._create(RUNS[0], "", 0, 0, 0, queue)

    def _create(
        self,
        run: str,
        token: str,
        timeout: int,
        start_timeout: int,
        start: int,
        queue: str,
    ) -> None:
        fields = ["function", "work", "queue", queue, "event", "{}"]
        fields += ["event_id", "e\n1", "event_name", "a/b"]
        options = (LEASE, timeout, start_timeout, start)
        self.do("run_create", run, token, *options, *fields)

    @rule(
        run=st.sampled_from(RUNS),
        claims=st.booleans(),
        timeout=st.sampled_from([0, 0, 100_000]),
        start_timeout=st.sampled_from([0, 0, 20_000]),
        start=st.sampled_from([0, 0, 0, 40_000]),
        queue=queues,
    )
    def create(self, claims: bool, start: int, **given: t.Any) -> None:
        token = self.new_token() if claims else ""
        start = self.oracle.now + start if start else 0
        self._create(token=token, start=start, **given)

    @rule(run=choices, age=st.sampled_from([-1, -1, -1, 0, 2]), late=durations)
    def claim(self, run: int, age: int, late: int) -> None:
        id = self.pick(run, "queued")
        token = self.new_token() if age < 0 else self.token(age)
        queued = self.oracle.now - late
        self.do("run_claim", id, token, LEASE, MOST_DISPATCHES, "v1", queued)

    @rule(run=choices)
    def park(self, run: int) -> None:
        self.do("run_park", self.pick(run, "queued"), *DEFER)

    @rule(
        run=choices,
        age=ages,
        lease=st.sampled_from([0, LEASE, 2 * LEASE]),
        step=steps,
        status=st.sampled_from(["done", "failed", "intent"]),
        number=numbers,
        payload=payloads,
    )
    def commit(self, run: int, age: int, lease: int, **given: t.Any) -> None:
        id = self.pick(run, "running")
        args = (given["step"], given["status"], given["number"], given["payload"])
        limits = (MOST_STEPS, MOST_BYTES)
        self.do("step_commit", id, self.owner(id, age), lease, *args, *limits)

    @rule(run=choices, age=ages, step=steps, number=numbers, payload=payloads)
    def checkpoint(self, run: int, age: int, **given: t.Any) -> None:
        id = self.pick(run, "running")
        args = (given["step"], given["number"], given["payload"])
        limits = (MOST_STEPS, MOST_BYTES)
        self.do("step_checkpoint", id, self.owner(id, age), *args, *limits)

    @rule(run=choices, age=ages, progress=payloads)
    def show_progress(self, run: int, age: int, progress: str) -> None:
        id = self.pick(run, "running")
        self.do("run_progress", id, self.owner(id, age), progress)

    @rule(
        run=choices,
        age=ages,
        how=st.sampled_from(
            [
                *("sleep", "event", "signal", "url", "poll"),
                *("retry", "body", "handback", "pause"),
            ]
        ),
        duration=durations,
        absolute=st.booleans(),
        step=steps,
        number=numbers,
        payload=payloads,
        signal=st.sampled_from(["go", "stop"]),
    )
    def suspend(
        self, run: int, age: int, how: str, duration: int, absolute: bool, **rest: t.Any
    ) -> None:
        id = self.pick(run, "running")
        due = f"@{self.oracle.now + duration}" if absolute else str(duration)
        args = (rest["step"], rest["number"], rest["payload"], MOST_STEPS, MOST_BYTES)
        name = rest["signal"] if how in ("signal", "url") else ""
        head = (id, self.owner(id, age), LEASE, how, due, how)
        self.do("run_suspend", *head, *args, name)

    @rule(
        run=choices,
        step=steps,
        paths=path_sets,
        digest=digests,
        after=st.integers(0, 2),
        duration=durations,
        learned=st.booleans(),
    )
    def wait(
        self,
        run: int,
        step: str,
        paths: str,
        digest: str,
        after: int,
        duration: int,
        learned: bool,
    ) -> None:
        id = self.pick(run, "running")
        found = self.oracle.runs.get(id)
        created = found.created if found else self.oracle.now
        stamps = [0, self.oracle.home.kept.get("last", 0), created * 1000]
        options = (str(stamps[after]), str(duration), "p\n", LOOK_BACK)
        digest = digest if paths else ""
        head = (NAME, id, step, paths, digest, created)
        reply = self.do("waiter_add", *head, *options, "1" if learned else "")
        if reply[0] == "waiting":
            ends = (f"@{reply[1]}", "event", step, 0, "p\n", MOST_STEPS, MOST_BYTES)
            self.do("run_suspend", id, self.owner(id, 0), LEASE, "event", *ends)

    @rule(
        event=st.sampled_from(["e\n1", "p1", "p2", "p3"]),
        text=st.sampled_from(["text", "x" * 60]),
        later=st.sampled_from([0, 0, 0, 50_000]),
        known=st.integers(0, 3),
        chosen=st.lists(digests, max_size=2, unique=True),
        wakes=st.sampled_from([True, True, False]),
    )
    def deliver(
        self,
        event: str,
        text: str,
        later: int,
        known: int,
        chosen: list[str],
        wakes: bool,
    ) -> None:
        home = self.oracle.home
        due = self.oracle.now + later if later else 0
        is_due = "1" if event in home.coming else ""
        sets = [*home.paths][: known if known < 2 else None]
        options = (LOOK_BACK, LOOK_BACK_SIZE, "0", "", len(sets), *sets, *chosen)
        reply = self.do("event_deliver", NAME, event, text, due, is_due, *options)
        if reply[0] != "waits" or not wakes:
            return
        over = []
        for run, step, stamp, ends, payload in reply[4:]:
            args = (run, step, event, int(reply[1]), ends, payload, text, NAME)
            if self._waits_for_a_child(run, step):
                continue
            if self.do("run_wake", *args)[0] not in ("used", "own"):
                over += [run, step, stamp]
        self.do("waiters_remove", NAME, event if is_due else "", *over)

    @rule(
        run=choices,
        name=st.sampled_from(["go", "stop"]),
        id=st.sampled_from(["s1", "s2", "s3"]),
        mark=st.sampled_from(["", "", "m1", "m2"]),
        left=st.sampled_from([None, None, 60_000, 0, -1]),
    )
    def signal(self, run: int, name: str, id: str, mark: str, left: int | None) -> None:
        until = "" if left is None else str(self.oracle.now + left)
        run_id = self.pick(run, "suspended", "running")
        self.do("signal_put", run_id, name, id, "data", mark, until)

    @rule(
        run=choices,
        step=steps,
        event=st.sampled_from(["e\n1", "p1", "p2"]),
        name=st.sampled_from([NAME, "c/d"]),
    )
    def wake(self, run: int, step: str, event: str, name: str) -> None:
        if event == "e\n1":  # no id of an event that could answer a wait
            name = NAME
        id = self.pick(run, "suspended", "running")
        now = self.oracle.now
        if not self._waits_for_a_child(id, step):
            self.do("run_wake", id, step, event, now, str(now), "p\n", "text", name)

    def _waits_for_a_child(self, id: str, step: str) -> bool:
        """No event is sent to such a step: a step is of one kind."""
        run = self.oracle.runs.get(id)
        return run is not None and (run.waiting, run.reason) == (step, "child")

    @rule(
        run=choices,
        age=ages,
        step=steps,
        wait=st.sampled_from([0, 0, 1_000, 61_000]),
        timeout=st.sampled_from([0, 0, 100_000]),
        queue=queues,
        payload=payloads,
    )
    def invoke(
        self, run: int, age: int, step: str, wait: int, payload: str, **given: t.Any
    ) -> None:
        id = self.pick(run, "running")
        self._invoke(id, self.owner(id, age), step, wait, payload, **given)

    def _invoke(
        self,
        id: str,
        token: str,
        step: str,
        wait: int = 0,
        payload: str = "",
        timeout: int = 0,
        queue: str = "media",
    ) -> str:
        """Have a step of a run start a child; return its id."""
        found = self.oracle.runs.get(id)
        made = (found.created, found.generation) if found else (0, 0)
        root, name = id.partition(".")[0], id.replace(".", "_")
        child = f"{root}.{name}_{STEPS.index(step)}_{made[0] - BEGIN}_{made[1]}"
        head = (id, token, LEASE, step, wait, payload, "late")
        limits = (MOST_STEPS, MOST_BYTES, child, timeout, 0)
        fields = ["function", "work", "queue", queue, "event", "{}"]
        fields += ["event_id", "e\n1", "event_name", "a/b"]
        self.do("child_start", *head, *limits, *fields)
        return child

    @rule(run=choices, step=steps, retried=st.booleans(), ends=st.booleans())
    def leave_a_child(self, run: int, step: str, retried: bool, ends: bool) -> None:
        """Cancel a run that waits for a child, which may end all the same."""
        id = self.pick(run, "running")
        child = self._invoke(id, self.owner(id, 0), step)
        self.do("run_admin", id, "cancel", self.new_token(), "why", RETENTION)
        if retried:
            self.do("run_admin", id, "retry", self.new_token(), "", RETENTION)
            token = self.new_token()
            self.do("run_claim", id, token, LEASE, MOST_DISPATCHES, "v1", 0)
            self._invoke(id, token, step)
        if ends:
            token = self.new_token()
            self.do("run_claim", child, token, LEASE, MOST_DISPATCHES, "v1", 0)
            outcome = ("completed", '{"x": 1}', RETENTION, "", "", "", "", "")
            self.do("run_finish", child, token, *outcome)
        self.sweep([])

    @rule(
        run=choices,
        age=ages,
        step=st.sampled_from(GROUPS),
        sizes=st.sampled_from([(1,), (2,), (1, 1), (1, 2)]),
        limit=st.sampled_from([1, 2, 3]),
        tolerate=st.sampled_from([0, 0, 1]),
        first=st.booleans(),
        item=st.sampled_from(["", "1", '"ü"']),
        pages=st.sampled_from([1, 2, 2]),
        listed=st.sampled_from([0, 0, 1, 2]),
    )
    def fan_out(
        self,
        run: int,
        age: int,
        step: str,
        sizes: tuple[int, ...],
        limit: int,
        tolerate: int,
        first: bool,
        item: str,
        pages: int,
        listed: int,
    ) -> None:
        """Have a step ask for branches, in pages of which some may be missing."""
        id = self.pick(run, "running")
        token, total, offset = self.owner(id, age), sum(sizes), 0
        found = self.oracle.runs.get(id)
        created = found.created - BEGIN if found else 0
        terms = (total, 1 if first else total, limit, tolerate)
        head = (id, token, LEASE, step, "group    ", str(total))
        asked = [
            (place, f"{id}.b-{step}{created}{place}", item)
            for place in (f"p{number}" for number in range(total))
        ]
        for size in sizes[:listed]:
            flat = [part for branch in asked[offset : offset + size] for part in branch]
            most = (total * len(item.encode()), MOST_BRANCHES, 10 * MOST_BYTES)
            head_of_list = (id, token, LEASE, step, str(total), offset, total, 3)
            if self.do("branches_list", *head_of_list, *most, *flat)[0] != "ok":
                return
            offset += size
        offset = 0
        for size in sizes[:pages]:
            flat = [part for branch in asked[offset : offset + size] for part in branch]
            limits = (MOST_BRANCHES, 10 * MOST_BYTES, offset)
            reply = self.do("branches_start", *head, *limits, *terms, 0, *flat)
            if reply[0] != "more":
                return
            offset += size

    @rule(chosen=st.lists(st.booleans(), min_size=1, max_size=4), room=st.booleans())
    def end_branches(self, chosen: list[bool], room: bool) -> None:
        """End as many branches as are given, by the failures among them."""
        for failed in chosen:
            queued = [
                run.id
                for run in self.oracle.runs.values()
                if run.kind == "branch" and run.status == "queued"
            ]
            if not queued:
                return
            token = self.new_token()
            args = (token, LEASE, MOST_DISPATCHES, "v1", 0)
            if self.do("run_claim", queued[0], *args)[0] != "claimed":
                return
            outcome = "{}" if failed else '"x"' if room else f'"{"x" * 900}"'
            to = "failed" if failed else "completed"
            rest = (to, outcome, RETENTION, "", "", "", "", "")
            self.do("run_finish", queued[0], token, *rest)

    @rule(
        run=choices,
        age=ages,
        failed=st.booleans(),
        step=steps,
        reason=st.sampled_from(["", "why"]),
        handled=st.booleans(),
        owed=events,
    )
    def finish(
        self, run: int, age: int, failed: bool, handled: bool, **rest: t.Any
    ) -> None:
        id = self.pick(run, "running")
        found = self.oracle.runs.get(id)
        handler = ("", "", "")
        plain = found is not None and found.failed_run is None and found.by is None
        if failed and handled and found is not None and plain:
            suffix = f"-{found.generation}" if found.generation else ""
            handler = (f"{id}.failure{suffix}", "on_failure", "media")
        to = "failed" if failed else "completed"
        memo = found.memos.get(rest["step"]) if found else None
        culprit = rest["step"] if failed and memo and memo.status == "failed" else ""
        head = (id, self.owner(id, age), to, '{"x": 1}', RETENTION, culprit)
        self.do("run_finish", *head, rest["reason"], *handler, *rest["owed"])

    @rule(
        run=choices,
        action=st.sampled_from([*FITTING, "retry"]),
        owed=events,
        generation=st.none() | st.integers(0, 2),
    )
    def administer(
        self, run: int, action: str, owed: list[str], generation: int | None
    ) -> None:
        id = self.pick(run, *FITTING[action])
        if action in ("resume", "retry"):
            owed = []
        if action == "retry" and generation is not None:
            owed = [str(generation)]
        args = (id, action, self.new_token(), "because", RETENTION, *owed)
        found = self.oracle.runs.get(id)
        failed_step = found.failed_step if found else None
        if self.do("run_admin", *args)[0] == "ok" and action == "retry":
            self.outcomes.pop((id, failed_step or ""), None)

    @rule(chosen=st.lists(st.tuples(choices, ages), min_size=1, max_size=4))
    def renew(self, chosen: list[tuple[int, int]]) -> None:
        args: list[t.Any] = []
        for run, age in chosen:
            id = self.pick(run, "running")
            args += [id, self.owner(id, age), LEASE]
        self.do("lease_renew", *args)

    @rule(empty=st.lists(queues, max_size=2, unique=True))
    def sweep(self, empty: list[str]) -> None:
        self.do("sweep", LEASE, 100, len(empty), *empty)

    @rule(resting=st.lists(queues, max_size=2, unique=True))
    def sweep_without(self, resting: list[str]) -> None:
        self.do("sweep", LEASE, 100, 0, *resting)

    @rule(by=advances, empty=st.lists(queues, max_size=1))
    def advance_and_sweep(self, by: int, empty: list[str]) -> None:
        self.advance(by)
        self.sweep(empty)

    @rule(by=advances)
    def advance(self, by: int) -> None:
        self.oracle.now += by
        self.server.set_clock(self.oracle.now)

    @rule()
    def lose_every_lease(self) -> None:
        """Let two looks find what is not renewed."""
        self.advance(4 * LEASE)
        self.sweep([])
        self.advance(LEASE // 3)
        self.sweep([])

    @rule(run=choices, step=steps, status=st.sampled_from(["intent", "done"]))
    def die_after_an_intent(self, run: int, step: str, status: str) -> None:
        """Have the next owner find an intent that has no outcome."""
        id = self.pick(run, "running")
        limits = (MOST_STEPS, MOST_BYTES)
        head = (id, self.owner(id, 0), LEASE, step, "intent", 1, "run")
        self.do("step_commit", *head, *limits)
        self.lose_every_lease()
        self.do("run_claim", id, self.new_token(), LEASE, MOST_DISPATCHES, "v1", 0)
        head = (id, self.owner(id, 0), LEASE, step, status, 1, "run")
        self.do("step_commit", *head, *limits)

    @rule(run=choices)
    def make_no_progress(self, run: int) -> None:
        """Claim and lose a run until that is too often."""
        id = self.pick(run, "queued")
        for _ in range(MOST_DISPATCHES + 1):
            token = self.new_token()
            self.do("run_claim", id, token, LEASE, MOST_DISPATCHES, "v1", 0)
            self.lose_every_lease()

    @rule(run=choices, age=ages)
    def hold(self, run: int, age: int) -> None:
        id = self.pick(run, "running")
        self.do("run_hold", id, self.owner(id, age))

    @rule(run=choices, age=ages, step=steps)
    def note(self, run: int, age: int, step: str) -> None:
        id = self.pick(run, "running")
        self.do("run_note", id, self.owner(id, age), step)

    @rule(chosen=st.lists(st.tuples(choices, ages), min_size=1, max_size=3))
    def excuse(self, chosen: list[tuple[int, int]]) -> None:
        args = []
        for run, age in chosen:
            id = self.pick(run, "running")
            args += [id, self.owner(id, age)]
        self.do("run_excuse", *args)

    @rule(run=choices)
    def expire(self, run: int) -> None:
        self.do("run_expire", self.pick(run, *FINISHED))

    @rule(retried=st.booleans(), died=st.booleans())
    def expire_all(self, **given: bool) -> None:
        self._expire_all(**given)

    def _expire_all(self, retried: bool, died: bool) -> None:
        """Let the retention be over, and have the objects of runs removed.

        :param retried: True if such a run is retried first.
        :param died: True if the first remover dies, and a later sweep names them again.
        """
        self.advance(RETENTION)
        found = self.do("sweep", LEASE, 100, 0)
        if died:
            self.advance(60_000)
            found = self.do("sweep", LEASE, 100, 0)
        for id in found[3]:
            if retried:
                self.do("run_admin", id, "retry", self.new_token(), "", RETENTION)
            assert self.do("run_expire", id) == 1
        # A run stays until its children have ended, and a branch, or a child that has
        # objects, a while longer than its run.
        for id in self.oracle.expiry:
            run = self.oracle.runs[id]
            stays = run.kind == "branch" or (run.parent and run.blobs)
            assert self.oracle.unfinished[id] or stays

    @rule(run=choices, retried=st.booleans(), died=st.booleans())
    def leave_objects(self, run: int, **given: bool) -> None:
        """Cancel a run that has objects, and have it expire."""
        id = self.pick(run, "running")
        self.do("run_hold", id, self.owner(id, 0))
        self.do("run_admin", id, "cancel", self.new_token(), "why", RETENTION)
        self._expire_all(**given)

    def _is_gone(self, run: str) -> None:
        for pair in [pair for pair in self.outcomes if pair[0] == run]:
            del self.outcomes[pair]
        names = {run, f"run:{run}", f"wake:{run}", f"timeout:{run}", f"start:{run}"}
        for key, value in dump(self.server.client, moving=()).items():
            assert not key.endswith((f":run:{run}", f":steps:{run}"))
            members = {m if isinstance(m, str) else m[0] for m in value}
            assert not names & members

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        owed = [entry for entries in self.oracle.owed.values() for entry in entries]
        if not owed:
            return
        events = []
        for entry in data.draw(st.lists(st.sampled_from(sorted(owed)), min_size=1)):
            kind, _, id = entry.partition(":")
            if kind == "run":
                queued = str(self.oracle.runs[id].queued_at)
                self.do("outbox_confirm", id, queued)
            else:
                events.append(entry)
        if events:
            self.oracle.confirm_events(events)
            self.kit.store.confirm_events(self.tag, events)

    @rule(age=st.integers(0, 12))
    def repeat_an_earlier_call(self, age: int) -> None:
        name, args = self.history[max(len(self.history) - 1 - age, 0)]
        if name == "run_admin" and args[1] == "retry":
            return  # its effect on outcomes is checked where it is made
        self.call(name, *args)

    # -- Checks -----------------------------------------------------------------------

    @invariant()
    def a_all_that_is_stored_is_known(self) -> None:
        self.stored = seen(self.server, self.tag)
        assert self.stored == view_of(self.oracle)

    @invariant()
    def every_unfinished_run_has_an_owner(self) -> None:
        oracle = self.oracle
        for id, run in oracle.runs.items():
            owners = {
                "queued": id in oracle.queued,
                "running": id in oracle.leases,
                "suspended": f"wake:{id}" in oracle.timers
                or self.awaits(id)
                or self.awaits_room(id),
            }
            for status, owned in owners.items():
                assert owned == (run.status == status), (id, run.status, status)
            assert (run.token is not None) == (run.status == "running")
            assert (id in oracle.expiry) == (run.status in FINISHED)

    def awaits(self, id: str) -> bool:
        """Return True if a run waits for a child that has not ended."""
        run = self.oracle.runs[id]
        return run.waiting is not None and any(
            child.parent_step == run.waiting and not self.oracle._is_orphan(child)
            for child in map(self.oracle.runs.__getitem__, self.oracle.unfinished[id])
        )

    def awaits_room(self, id: str) -> bool:
        """Return True if a branch waits for others to end, or to be cancelled."""
        run = self.oracle.runs[id]
        if run.kind != "branch" or (run.status, run.reason) != ("suspended", "limit"):
            return False
        group = self.oracle.runs[run.parent or ""].groups[run.parent_step or ""]
        asked = self.oracle._may_be_asked_for(run)
        return id in group.next or asked or self.oracle._is_orphan(run)

    @invariant()
    def no_more_branches_are_under_way_than_may(self) -> None:
        for id, run in self.oracle.runs.items():
            for step, group in run.groups.items():
                if run.status in FINISHED or run.memos.get(step) is None:
                    continue
                under = [
                    branch.id
                    for branch in map(
                        self.oracle.runs.__getitem__, self.oracle.unfinished[id]
                    )
                    if branch.parent_step == step
                    and branch.by == group.by
                    and branch.id not in group.next
                    and not self.oracle._is_orphan(branch)
                ]
                if run.memos[step].status == "waiting":
                    assert group.under == len(under)
                    assert not group.next or len(under) >= group.limit

    @invariant()
    def every_orphan_will_be_named(self) -> None:
        oracle = self.oracle
        for parent, children in oracle.unfinished.items():
            for child in children:
                if oracle._is_orphan(oracle.runs[child]):
                    assert f"orphans:{parent}" in oracle.timers

    @invariant()
    def the_counts_add_up(self) -> None:
        totals = self.oracle.totals
        for function in ("work", "on_failure"):
            ended = sum(totals[f"{function}:{status}"] for status in FINISHED)
            unfinished = [
                run
                for run in self.oracle.runs.values()
                if run.function == function
                and run.status not in FINISHED
                and run.kind != "branch"
            ]
            assert totals[f"{function}:started"] == ended + len(unfinished)

    @invariant()
    def an_outcome_never_changes(self) -> None:
        for id in self.oracle.runs:
            for step, memo in self.stored.get(f"steps:{id}", {}).items():
                if memo.partition(" ")[0] in FINAL:
                    assert self.outcomes.setdefault((id, step), memo) == memo
        for run_id, step in self.outcomes:
            assert self.oracle.runs[run_id].memos[step].status in FINAL


def view_of(oracle: Oracle) -> dict[str, t.Any]:
    """Return the oracle's state in the form of :func:`seen`."""
    found: dict[str, t.Any] = {
        "leases": dict(oracle.leases),
        "timers": dict(oracle.timers),
        "parents": dict(oracle.parents),
        "queued": dict(oracle.queued),
        "outboxes": dict(oracle.outboxes),
        "events": dict(oracle.events),
        "lease": str(oracle.longest_lease) if oracle.longest_lease else "",
        "expire": dict(oracle.expiry),
        "marks": {name: str(time) for name, time in oracle.marks.items()},
        "looks": {id: " ".join(map(str, look)) for id, look in oracle.looks.items()},
        "runs": {
            run.id: run.created for run in oracle.runs.values() if run.kind != "branch"
        },
        "arrived": texts(oracle.arrived),
        "totals": texts(oracle.totals),
    }
    found |= oracle.home.view()
    found |= {
        f"counts:{hour}": texts(counted) for hour, counted in oracle.hours.items()
    }
    found |= {f"outbox:{queue}": dict(owed) for queue, owed in oracle.owed.items()}
    for name in ("children", "unfinished"):
        kept = getattr(oracle, name).items()
        found |= {f"{name}:{id}": dict(children) for id, children in kept}
    indexes: dict[str, dict[str, int]] = defaultdict(dict)
    for run in oracle.runs.values():
        index = "branches" if run.kind == "branch" else "status"
        indexes[f"{index}:{run.status}"][run.id] = run.created
        if run.kind != "branch":
            indexes[f"function:{run.function}"][run.id] = run.created
        for step, listed in run.lists.items():
            found[f"list:{run.id}:{step}"] = listed
        found[f"groups:{run.id}"] = dict.fromkeys([*run.groups, *run.lists], 0)
        for step, group in run.groups.items():
            found[f"group:{run.id}:{step}"] = group.fields()
            found[f"next:{run.id}:{step}"] = dict(group.next)
        if run.status == "queued":
            assert run.queued_at is not None
            indexes[f"waiting:{run.job}"][run.id] = run.queued_at
        found[f"run:{run.id}"] = {
            name: str(value)
            for name in FIELDS
            if (value := getattr(run, name)) is not None
        }
        found[f"run:{run.id}"]["bytes"] = str(run.size)
        found[f"run:{run.id}"]["doubts"] = str(run.doubts)
        found[f"steps:{run.id}"] = {s: str(memo) for s, memo in run.memos.items()}
        found[f"signals:{run.id}"] = inbox_of(run)
        found[f"line:{run.id}"] = {
            f"{name} {number:016} {branch} {step}": 0
            for name, number, branch, step in run.line
        }
        found[f"used:{run.id}"] = {event: 0 for event in run.used}
    return {name: value for name, value in (found | indexes).items() if value}


def inbox_of(run: Run) -> dict[str, str]:
    found = {f"id {id}": mark for id, mark in run.signals.items()}
    found |= {f"to {id}": branch for id, branch in run.given.items()}
    if run.lined:
        found["lined"] = str(run.lined)
    if run.signals:
        found["accepted"] = str(len(run.signals))
    for name, kept in run.inbox.items():
        taken = run.signals_taken[name]
        found[f"last {name}"] = str(len(kept))
        if taken:
            found[f"taken {name}"] = str(taken)
        for number, data in enumerate(kept[taken:], taken + 1):
            found[f"at {number} {name}"] = data
    if run.inbox:
        left = [len(k) - run.signals_taken[n] for n, k in run.inbox.items()]
        found["kept"] = str(sum(left))
    return found


def texts(counts: t.Mapping[str, int]) -> dict[str, str]:
    return {name: str(count) for name, count in counts.items()}


#: The part of a run's record that others see, by the same name in the oracle.
FIELDS = (
    "status",
    "function",
    "queue",
    "created",
    "timeout",
    "token",
    "dispatches",
    "attempt",
    "generation",
    "reason",
    "due",
    "waiting",
    "becomes",
    "failure",
    "result",
    "failed_step",
    "progress",
    "blobs",
    "expiring",
    "changed_step",
    "kind",
    "parent",
    "parent_step",
    "parent_generation",
    "parent_memo",
    "children",
    "by",
    "place",
    "item",
    "branched",
    "root",
    "failed_run",
    "failed_generation",
    "cause",
    "queued_at",
    "claimed_at",
    "claims",
    "started",
    "finished",
    "deferred_since",
    "timeout_left",
    "start_left",
)


def seen(server: FrozenServer, tag: str) -> dict[str, t.Any]:
    """Return everything that is stored, in the form of :func:`view_of`."""
    found: dict[str, t.Any] = {}
    for key, value in dump(server.client, moving=()).items():
        if key == "clock":
            continue
        name = key.removeprefix(f"{tag}:")
        if isinstance(value, list) and not name.startswith("list:"):
            value = {member: int(score) for member, score in value}
        if isinstance(value, set):
            value = dict.fromkeys(value, 0)
        if name.startswith("run:"):
            kept = {"bytes": "0", "doubts": "0"} | value
            value = {n: kept[n] for n in (*FIELDS, "bytes", "doubts") if n in kept}
        found[name] = value
    return found


@pytest.mark.timeout(3600)
def test_the_scripts_do_what_the_oracle_says(
    url: str, pytestconfig: pytest.Config
) -> None:
    long = pytestconfig.getoption("--long")
    Model.url = url
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=4000 if long else 120,
            stateful_step_count=80 if long else 40,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
