"""The duties of the scripts without Redis: the state machine in memory.

One method a script, with the script's arguments; see the headers of the scripts and the
table of states. Times are milliseconds of a clock that only the test moves.
"""

from __future__ import annotations

import typing as t
from collections import Counter
from collections import defaultdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from .oracle_home import Home

RESEND = 5_000
DOUBT = 60_000
DOUBLINGS = 6
LONGEST_LOOK = 3_600_000
EVENTS = "events"
#: The one name that waits are for.
NAME = "a/b"
CLAIMS = 20
FINISHED = ("completed", "failed", "cancelled")
FINAL = ("done", "failed")
CANCELLED = (
    '{"type":"RunCancelled","message":"the run was cancelled","code":"run.cancelled"}'
)

TOO_LARGE = (
    '{"type":"StepUsageError","message":"the results of the branches are '
    'larger than 32 MiB together","code":"step.usage"}'
)

Reply = list[t.Any]


@dataclass
class Memo:
    """The stored record of one step."""

    status: str
    token: str
    number: int
    order: int
    payload: str

    def __str__(self) -> str:
        head = f"{self.status} {self.token} {self.number} {self.order}"
        return f"{head}\n{self.payload}"

    @property
    def size(self) -> int:
        return len(str(self).encode())


@dataclass
class Group:
    """The branches of one step."""

    by: str
    until: int
    limit: int
    tolerate: int
    most: int
    memo: str
    total: int
    again: str
    filled: int = 0
    under: int = 0
    ended: int = 0
    failed: int = 0
    decided: str | None = None
    outcomes: dict[str, str] = field(default_factory=dict)
    #: The branches that wait for room, by their order.
    next: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(len(outcome.encode()) for outcome in self.outcomes.values())

    def fields(self) -> dict[str, str]:
        kept = {**vars(self)}
        outcomes, _ = kept.pop("outcomes"), kept.pop("next")
        kept |= {f"={place}": outcome for place, outcome in outcomes.items()}
        return {name: str(value) for name, value in kept.items() if value is not None}


@dataclass
class Run:
    """One run, as far as a caller can tell."""

    id: str
    function: str
    queue: str
    created: int
    timeout: int = 0
    status: str = ""
    token: str | None = None
    dispatches: int = 0
    attempt: int = 0
    generation: int = 0
    reason: str | None = None
    due: int | None = None
    waiting: str | None = None
    becomes: str | None = None
    failure: str | None = None
    result: str | None = None
    failed_step: str | None = None
    kind: str | None = None
    parent: str | None = None
    parent_step: str | None = None
    parent_generation: int | None = None
    parent_memo: str | None = None
    #: "1" if it ever had a child.
    children: str | None = None
    #: Of a branch: the token that asked for it last.
    by: str | None = None
    place: str | None = None
    item: str | None = None
    #: The number of branches that were made for it, and the bytes of their items.
    branched: int | None = None
    items: int = 0
    #: By step: its branches.
    groups: dict[str, Group] = field(default_factory=dict)
    #: By step: the branches that it is to have, behind a line and a memo's JSON.
    lists: dict[str, list[str]] = field(default_factory=dict)
    failed_run: str | None = None
    failed_generation: int | None = None
    cause: str | None = None
    queued_at: int | None = None
    claimed_at: int | None = None
    started: int | None = None
    finished: int | None = None
    deferred_since: int | None = None
    doubts: int = 0
    #: The rest of its times while it is paused.
    timeout_left: int | None = None
    start_left: int | None = None
    #: For each claim its time and the time queued before; then the time until it was
    #: given up, and how it ended.
    claimed: list[list[t.Any]] = field(default_factory=list)
    progress: str | None = None
    #: "1" if it has objects in the blob store, and once these are being removed.
    blobs: str | None = None
    expiring: str | None = None
    #: The first step that a replay called differently.
    changed_step: str | None = None
    memos: dict[str, Memo] = field(default_factory=dict)
    #: Its inbox: accepted ids with their marks; signals by name, and how many of them
    #: were taken.
    signals: dict[str, str] = field(default_factory=dict)
    inbox: dict[str, list[str]] = field(default_factory=dict)
    signals_taken: Counter[str] = field(default_factory=Counter)
    awaited_signal: str | None = None
    #: The number of places that its line has given, and the line: name, number, branch
    #: and step. Of a branch, its run, and its place in that run's line.
    lined: int = 0
    line: list[tuple[str, int, str, str]] = field(default_factory=list)
    root: str | None = None
    in_line: tuple[str, int, str, str] | None = None
    #: By id of a signal: the branch that got it.
    given: dict[str, str] = field(default_factory=dict)
    #: The events that its waits have used.
    used: set[str] = field(default_factory=set)
    event_id: str = ""
    #: Memos that retries removed.
    removed: int = 0
    #: The token that gave up the run last, and the reply.
    left: tuple[str, Reply] | None = None
    #: The claimant that got the reply that the run is paused now.
    paused_by: str | None = None
    #: The last call from outside, and the reply.
    administered: tuple[str, Reply] | None = None

    def waits_in_inbox(self, name: str) -> bool:
        return self.signals_taken[name] < len(self.inbox.get(name, ()))

    @property
    def job(self) -> str:
        return f"{self.queue}:{self.function}"

    @property
    def claims(self) -> str | None:
        kept = list(enumerate(self.claimed, 1))[-CLAIMS:]
        return " ".join(":".join(map(str, [n, *claim])) for n, claim in kept) or None

    def order_of(self, step: str) -> int:
        memo = self.memos.get(step)
        return memo.order if memo else len(self.memos) + self.removed

    @property
    def size(self) -> int:
        outcomes = sum(group.size for group in self.groups.values())
        return sum(memo.size for memo in self.memos.values()) + outcomes + self.items


class Oracle:
    """One partition."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.runs: dict[str, Run] = {}
        self.leases: dict[str, int] = {}
        self.looks: dict[str, tuple[str, int, int]] = {}
        self.timers: dict[str, int] = {}
        self.parents: dict[str, int] = {}
        self.queued: dict[str, int] = {}
        #: The entries owed to each queue, and the time to look at a queue.
        self.owed: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self.outboxes: dict[str, int] = {}
        self.longest_lease = 0
        self.events: dict[str, str] = {}
        self.expiry: dict[str, int] = {}
        #: By parent: its children, and those that have not ended, by their creation.
        self.children: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self.unfinished: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self.arrived: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.hours: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.marks: dict[str, int] = {}
        self.home = Home(NAME)

    # -- Mailbox writes -------------------------------------------------------------

    def run_create(
        self,
        id: str,
        token: str,
        lease: int,
        timeout: int,
        start_timeout: int,
        start: int,
        *pairs: str,
    ) -> Reply:
        if id in self.runs:
            return self._create_again(self.runs[id], token)
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        run = Run(id, fields["function"], fields["queue"], self.now, timeout)
        run.event_id = fields["event_id"]
        self.runs[id] = run
        self._count(run, "started")
        begin = max(self.now, start)
        self._arm(run, begin, timeout, start_timeout)
        if start > self.now:
            self._wait(run, "scheduled", start)
            return ["scheduled", str(start)]
        if token:
            self._own(run, token, lease)
            run.queued_at = self.now
            self.arrived[run.job] += 1
            return ["claimed", str(self.now)]
        self._enqueue(run)
        return ["queued", str(self.now)]

    def _create_again(self, run: Run, token: str) -> Reply:
        if token and run.token == token:
            return ["claimed", str(run.claimed_at)]
        if run.status == "queued" and f"run:{run.id}" in self.owed[run.queue]:
            return ["queued", str(run.queued_at)]
        if run.status == "suspended" and run.reason == "scheduled":
            return ["scheduled", str(run.due)]
        return ["old", run.status]

    def run_claim(
        self, id: str, token: str, lease: int, most: int, version: str, queued: int
    ) -> Reply:
        run = self.runs.get(id)
        if run is None:
            return ["no", ""]
        if run.status == "running" and run.token == token:
            return ["claimed"]
        if run.status == "paused" and run.paused_by == token:
            return ["paused"]
        if run.status != "queued":
            return ["no", run.status]
        if run.kind == "branch" and self._is_orphan(run):
            return ["orphan"]
        self._unqueue(run)
        mark = f"delivered:{run.queue}"
        if queued > self.marks.get(mark, 0):
            self.marks[mark] = queued
        if run.dispatches >= most:
            self._pause(run)
            run.paused_by = token
            run.reason = f"claimed {run.dispatches} times without progress"
            return ["paused"]
        self._own(run, token, lease)
        run.deferred_since, run.doubts = None, 0
        return ["claimed"]

    def run_park(self, id: str, delay: int, most: int) -> Reply:
        run = self.runs.get(id)
        if run is None:
            return ["no", ""]
        if run.status == "suspended" and run.reason == "deferred":
            return ["deferred", str(run.due)]
        if run.status == "paused" and run.deferred_since is not None:
            return ["paused"]
        if run.status != "queued":
            return ["no", run.status]
        self._unqueue(run)
        since = self.now if run.deferred_since is None else run.deferred_since
        if self.now - since >= most:
            self._pause(run)
            run.reason = f"no worker has the code of {run.function}"
            return ["paused"]
        run.deferred_since = since
        self._wait(run, "deferred", self.now + delay)
        return ["deferred", str(run.due)]

    def run_admin(
        self,
        id: str,
        action: str,
        token: str,
        reason: str,
        retention: int,
        *events: str,
    ) -> Reply:
        run = self.runs.get(id)
        if run is None:
            return ["missing"]
        if run.administered and run.administered[0] == token:
            return run.administered[1]
        allowed = {
            "cancel": run.status not in FINISHED,
            "orphaned": self._is_orphan(run),
            "timeout": f"timeout:{id}" in self.timers,
            "unstarted": f"start:{id}" in self.timers,
            "resume": run.status == "paused",
            "retry": run.status in ("failed", "cancelled") and run.by is None,
        }
        other = action == "retry" and events and events[0] != str(run.generation)
        if not allowed[action] or other:
            return ["state", run.status]
        if action == "retry" and run.expiring:
            return ["missing"]
        ends = action in ("cancel", "orphaned", "timeout", "unstarted")
        reply = ["ok", str(self.now)]
        if ends:
            reply = ["ok", self._settle(run, "cancelled", retention)]
        run.administered = (token, reply)
        if ends:
            run.reason = reason
            self._owe(run, events)
            return reply
        if action == "retry":
            if run.memos.pop(run.failed_step or "", None):
                run.removed += 1
            run.failed_step = run.result = run.finished = None
            run.generation += 1
            self._count(run, "started")
            del self.expiry[id]
            self._arm(run, self.now, run.timeout, 0)
        else:
            for kind in ("timeout", "start"):
                if (left := getattr(run, f"{kind}_left")) is not None:
                    self.timers[f"{kind}:{id}"] = self.now + left
            run.timeout_left = run.start_left = None
        run.failure = run.deferred_since = None
        run.dispatches = run.attempt = 0
        self._enqueue(run)
        return reply

    # -- The owner's writes -----------------------------------------------------------

    def step_commit(
        self,
        id: str,
        token: str,
        lease: int,
        step: str,
        status: str,
        number: int,
        payload: str,
        most_steps: int,
        most_bytes: int,
    ) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            return self._refusal(run)
        existing = run.memos.get(step)
        if existing is not None and existing.status in FINAL:
            return ["ok"] if existing.token == token else ["exists", str(existing)]
        interrupted = existing is not None and existing.token != token
        if interrupted and t.cast(Memo, existing).status == status == "intent":
            return ["interrupted"]
        memo = Memo(status, token, number, run.order_of(step), payload)
        if full := self._full(run, step, memo, most_steps, most_bytes):
            return ["full", full]
        run.memos[step] = memo
        run.dispatches = run.attempt = 0
        if lease:
            self.leases[id] = self.now + lease
        return ["ok"]

    def step_checkpoint(
        self,
        id: str,
        token: str,
        step: str,
        number: int,
        payload: str,
        most_steps: int,
        most_bytes: int,
    ) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            return self._refusal(run)
        memo = Memo("begun", token, number, run.order_of(step), payload)
        existing = run.memos.get(step)
        if existing is not None:
            if existing.status not in ("begun", "tried", "intent"):
                return ["ended"]
            memo = replace(existing, payload=payload)
        if full := self._full(run, step, memo, most_steps, most_bytes):
            return ["full", full]
        run.memos[step] = memo
        return ["ok"]

    def run_progress(self, id: str, token: str, progress: str) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            return self._refusal(run)
        run.progress = progress
        return ["ok"]

    def run_hold(self, id: str, token: str) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            return self._refusal(run)
        run.blobs = "1"
        return ["ok"]

    def run_note(self, id: str, token: str, step: str) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            return self._refusal(run)
        run.changed_step = run.changed_step or step
        return ["ok"]

    def run_excuse(self, *owned: str) -> int:
        excused = 0
        for id, token in zip(owned[::2], owned[1::2], strict=True):
            run = self.runs.get(id)
            if run is not None and run.token == token:
                run.dispatches = 0
                excused += 1
        return excused

    def run_suspend(
        self,
        id: str,
        token: str,
        lease: int,
        how: str,
        when: str,
        reason: str,
        step: str,
        number: int,
        payload: str,
        most_steps: int,
        most_bytes: int,
        signal: str = "",
    ) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            left = self._left(run, token, finished=False)
            return left[:2] if left else self._refusal(run)
        due = int(when[1:]) if when.startswith("@") else self.now + int(when)
        if how == "pause":
            self._pause(run)
            run.reason, run.failure = reason, payload
            return self._leave(run, ["paused", "0"])
        if how == "handback":
            run.dispatches = max(run.dispatches - 1, 0)
            if due <= self.now:
                self._leave(run, ["queued", str(self.now)])
                self._enqueue(run)
                return ["queued", str(self.now)]
            return self._let_go(run, reason, due)
        if how == "body":
            run.attempt, run.dispatches, run.failure = number, 0, payload
            return self._let_go(run, reason, due)

        existing = run.memos.get(step)
        if existing is not None and existing.status in FINAL:
            self.leases[id] = self.now + lease
            return ["resolved", str(existing)]
        takes = False
        order = run.order_of(step)
        if how == "retry":
            memo = Memo("tried", token, number, order, payload)
            if existing and existing.status == "tried" and existing.number >= number:
                memo = existing
        else:
            if existing and existing.status == "waiting":
                due = existing.number
            memo = Memo("waiting", token, due, order, payload)
            if existing and existing.status == "waiting" and how in ("sleep", "poll"):
                memo = existing
            if due <= self.now:
                becomes = "begun" if how == "poll" else "done"
                memo = Memo(becomes, token, due, order, payload)
            early = how == "url" or (how == "signal" and due > self.now)
            if early and self._finds_signal(run, signal):
                root = self.runs[run.root or id]
                data = root.inbox[signal][root.signals_taken[signal]]
                memo = Memo("done", token, self.now, order, payload + data)
                takes = True
        if full := self._full(run, step, memo, most_steps, most_bytes):
            return ["full", full]
        run.memos[step] = memo
        if takes:
            self.runs[run.root or id].signals_taken[signal] += 1
        run.dispatches = run.attempt = 0
        if memo.status in ("done", "begun"):
            self.leases[id] = self.now + lease
            return ["resolved", str(memo)]
        if how in ("sleep", "event", "signal", "url", "poll"):
            run.waiting = step
            run.becomes = "begun" if how == "poll" else "done"
        if how in ("signal", "url"):
            run.awaited_signal = f"{signal} {step}"
        if how in ("signal", "url") and run.root is not None:
            root = self.runs[run.root]
            root.lined += 1
            run.in_line = (signal, root.lined, id, step)
            root.line.append(run.in_line)
        return self._let_go(run, reason, due)

    def run_finish(
        self,
        id: str,
        token: str,
        to: str,
        outcome: str,
        retention: int,
        failed_step: str,
        reason: str,
        handler: str,
        handler_function: str,
        handler_queue: str,
        *events: str,
    ) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            return self._left(run, token, finished=True) or self._refusal(run)
        told = self._settle(run, to, retention, outcome)
        if to == "completed":
            run.result = None if run.kind == "branch" else outcome
            run.failure = None
        else:
            run.failure, run.failed_step = outcome, failed_step
        run.reason = reason or run.reason
        queued = "0"
        if handler and handler not in self.runs:
            queued = str(self.now)
            child = Run(handler, handler_function, handler_queue, self.now)
            child.kind = "handler"
            child.failed_run, child.failed_generation = id, run.generation
            child.cause, child.event_id = outcome, run.event_id
            self.runs[handler] = child
            self._count(child, "started")
            self._enqueue(child)
        self._owe(run, events)
        run.left = (token, ["finished", queued, told])
        return ["finished", queued, told]

    def child_start(
        self,
        id: str,
        token: str,
        lease: int,
        step: str,
        wait: int,
        head: str,
        expired: str,
        most_steps: int,
        most_bytes: int,
        child_id: str,
        timeout: int,
        start_timeout: int,
        *pairs: str,
    ) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            left = self._left(run, token, finished=False)
            if left and len(left) == 3 and left[2].isdecimal():
                return left
            return self._refusal(run)
        existing = run.memos.get(step)
        if existing is not None and existing.status in FINAL:
            self.leases[id] = self.now + lease
            return ["resolved", str(existing)]
        due = self.now + wait if wait else 0
        memo = Memo("waiting", token, due, run.order_of(step), head + expired)
        if full := self._full(run, step, memo, most_steps, most_bytes):
            return ["full", full]
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        assert child_id not in self.runs
        child = Run(child_id, fields["function"], fields["queue"], self.now, timeout)
        child.event_id = fields["event_id"]
        child.kind, child.parent, child.parent_step = "child", id, step
        child.parent_generation, child.parent_memo = run.generation, head
        self.runs[child_id] = child
        self._count(child, "started")
        self._arm(child, self.now, timeout, start_timeout)
        self._enqueue(child)
        self.children[id][child_id] = self.unfinished[id][child_id] = self.now
        run.memos[step] = memo
        run.dispatches = run.attempt = 0
        run.waiting, run.becomes, run.children = step, "failed", "1"
        self._leave(run, ["suspended", str(due), str(self.now)])
        run.status, run.reason, run.due = "suspended", "child", due or None
        if due:
            self.parents[f"end:{id}"] = due
        self.parents[f"look:{id}"] = self.now + DOUBT
        return ["suspended", str(due), str(self.now)]

    def branches_list(
        self,
        id: str,
        token: str,
        lease: int,
        step: str,
        body: str,
        offset: int,
        total: int,
        width: int,
        size: int,
        most_steps: int,
        most_bytes: int,
        *texts: str,
    ) -> Reply:
        run = self.runs.get(id)
        if run is None or run.token != token:
            return self._refusal(run)
        first = f"{run.generation} {total} {width} {token}"
        found, stored = run.lists.get(step, [""]), 0
        if found[0] == first:
            stored = (len(found) - 2) // width
        elif offset == 0:
            if step not in run.groups:
                if len(run.memos) + (run.branched or 0) + total > most_steps:
                    return ["full", "steps"]
                if run.size + size > most_bytes:
                    return ["full", "bytes"]
            found = run.lists[step] = [first, body]
            run.children = "1"
        if offset > stored:
            return ["lost"]
        if offset == stored:
            found.extend(texts)
        self.leases[id] = self.now + lease
        return ["ok"]

    def branches_start(
        self,
        id: str,
        token: str,
        lease: int,
        step: str,
        head: str,
        body: str,
        most_steps: int,
        most_bytes: int,
        offset: int,
        total: int,
        until: int,
        limit: int,
        tolerate: int,
        shared: int,
        *flat: str,
    ) -> Reply:
        assert shared == 0, "children are not in the model"
        branches = list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
        run = self.runs.get(id)
        if run is None or run.token != token:
            if run and run.left == (token, ["suspended", "0", "branches"]):
                return ["suspended", self._owed_branches(branches)]
            return self._refusal(run)
        memo = run.memos.get(step)
        if memo is not None and memo.status in FINAL:
            self.leases[id] = self.now + lease
            return ["resolved", str(memo)]
        group = run.groups.get(step)
        begins = group is None or group.by != token
        filled = 0 if group is None or begins else group.filled
        if offset > filled:
            return ["lost"]
        items = sum(len(i.encode()) for _, b, i in branches if b not in self.runs)
        if offset == filled and run.size + items > most_bytes:
            return ["full", "bytes"]
        if begins:
            steps = len(run.memos) + (run.branched or 0) + total
            if group is None and steps > most_steps:
                return ["full", "steps"]
            new = Memo("waiting", token, 0, run.order_of(step), head + body)
            if full := self._full(run, step, new, most_steps, most_bytes):
                return ["full", full]
            again = "" if group is None else "1"
            outcomes = {} if group is None else group.outcomes
            group = Group(token, until, limit, tolerate, most_bytes, head, total, again)
            group.outcomes = outcomes
            run.memos[step], run.groups[step] = new, group
            run.children, run.dispatches, run.attempt = "1", 0, 0
        assert group is not None
        if offset == filled:
            decided = ""
            for number, (place, branch, item) in enumerate(branches, offset):
                if group.outcomes.get(place, "").startswith("done "):
                    group.ended += 1
                    decided = place
                    continue
                group.outcomes.pop(place, None)
                self._ask_for(run, group, step, number, place, branch, item)
            group.filled = offset + len(branches)
            if group.ended >= until:
                self._close(run, step, decided, None)
                self.leases[id] = self.now + lease
                return ["resolved", str(run.memos[step])]
        if group.filled < total:
            self.leases[id] = self.now + lease
            return ["more", self._owed_branches(branches)]
        run.lists.pop(step, None)
        if group.again:
            self._leave_orphans(run)
        self._leave(run, ["suspended", "0", "branches"])
        run.status, run.reason, run.waiting = "suspended", "branches", step
        run.dispatches = run.attempt = 0
        return ["suspended", self._owed_branches(branches)]

    def _ask_for(
        self,
        run: Run,
        group: Group,
        step: str,
        number: int,
        place: str,
        id: str,
        item: str,
    ) -> None:
        branch = self.runs.get(id)
        starts = True
        if branch is None:
            marked = run.function + ("" if run.root else "[branch]")
            branch = Run(id, marked, run.queue, self.now)
            branch.kind, branch.parent, branch.parent_step = "branch", run.id, step
            branch.place, branch.item = place, item
            branch.root = run.root or run.id
            branch.event_id = run.event_id
            self.runs[id] = branch
            run.items += len(item.encode())
            run.branched = (run.branched or 0) + 1
        elif branch.status in FINISHED:
            unknown = branch.reason == "outcome unknown"
            if not unknown and branch.memos.pop(branch.failed_step or "", None):
                branch.removed += 1
            run.items += len(item.encode()) - len((branch.item or "").encode())
            branch.failed_step = branch.finished = branch.reason = None
            branch.failure = branch.deferred_since = None
            del self.expiry[id]
            branch.generation += 1
            branch.dispatches = branch.attempt = 0
            branch.item = item
        else:
            starts = branch.reason == "limit" and branch.status == "suspended"
        branch.by = group.by
        self.children[run.id][id] = self.unfinished[run.id][id] = branch.created
        if not starts:
            group.under += 1
        elif group.under < group.limit:
            group.under += 1
            self._enqueue(branch)
        else:
            branch.status, branch.reason = "suspended", "limit"
            group.next[id] = number

    def _owed_branches(self, branches: list[tuple[str, str, str]]) -> Reply:
        found = [self.runs[id] for _, id, _ in branches if id in self.runs]
        return [[run.id, str(run.queued_at)] for run in found if run.status == "queued"]

    def _close(self, run: Run, step: str, place: str, failure: str | None) -> str:
        """End a step that has branches; return the time when its run was queued."""
        group, memo = run.groups[step], run.memos[step]
        memo.status, memo.number = "done", self.now
        if failure is not None:
            memo.status, memo.payload = "failed", group.memo + failure
        group.decided = place
        group.next.clear()
        run.lists.pop(step, None)
        told = "0"
        if run.status == "suspended" and run.waiting == step:
            run.waiting = run.becomes = None
            self.timers.pop(f"wake:{run.id}", None)
            self._enqueue(run)
            told = str(self.now)
        self._leave_orphans(run)
        return told

    def _tell_group(self, branch: Run, status: str, outcome: str | None) -> str:
        assert branch.parent is not None
        assert branch.place is not None
        if self.unfinished[branch.parent].pop(branch.id, None) is None:
            return "0"
        run = self.runs[branch.parent]
        step = branch.parent_step or ""
        group = run.groups[step]
        had_room = group.next.pop(branch.id, None) is None
        awaited = self._awaited_by(branch) is not None
        if not awaited and status != "completed":
            return "0"
        failure = None if status == "completed" else outcome or CANCELLED
        value = f"done {outcome}" if failure is None else f"failed {failure}"
        if run.size + len(value.encode()) > group.most:
            failure = TOO_LARGE
            value = f"failed {failure}"
        if branch.place in group.outcomes:
            return "0"
        group.outcomes[branch.place] = value
        if not awaited:
            return "0"
        group.ended += 1
        group.under -= had_room
        group.failed += failure is not None
        if group.failed > group.tolerate:
            return self._close(run, step, branch.place, failure)
        if group.ended >= group.until:
            return self._close(run, step, branch.place, None)
        if not group.next or group.under >= group.limit:
            return "0"
        following = min(group.next, key=lambda id: (group.next[id], id))
        del group.next[following]
        group.under += 1
        self._enqueue(self.runs[following])
        return f"{self.now}:{following}"

    def lease_renew(self, *leases: t.Any) -> Reply:
        replies = []
        batch = zip(leases[::3], leases[1::3], leases[2::3], strict=True)
        for id, token, lease in batch:
            run = self.runs.get(id)
            if run is not None and run.token == token:
                self.leases[id] = self.now + lease
                self._note_lease(lease)
                replies.append("ok")
            else:
                replies += self._refusal(run)
        return replies

    # -- The sweeper ------------------------------------------------------------------

    def sweep(self, lease: int, limit: int, count: int, *queues: str) -> Reply:
        for queue in queues[:count]:
            self.marks[f"empty:{queue}"] = self.now
        resting = queues[count:]
        self._note_lease(lease)
        for id in self._due(self.leases):
            self._look(self.runs[id], lease)
        timeouts = []
        for timer in self._due(self.timers):
            kind, _, id = timer.partition(":")
            if kind == "wake":
                del self.timers[timer]
                self._wake(self.runs[id], timeouts)
            elif kind == "orphans":
                self._name_orphans(id, timeouts)
            else:
                timeouts.append(timer)
                self.timers[timer] = self.now + RESEND
        self.home.sweep(self.now)
        for entry in self._due(self.parents):
            kind, _, id = entry.partition(":")
            # A wait that another entry has ended took this one with it.
            if self.parents.pop(entry, None) is not None:
                self._look_at_parent(self.runs[id], kind, timeouts)
        for id in self._due(self.queued):
            self._doubt(self.runs[id])
        expiring: list[str] = []
        for id in self._due(self.expiry):
            if self.unfinished[id]:
                self.expiry[id] = self.now + 60_000
                continue
            run = self.runs[id]
            if self._is_needed(run) or (run.blobs and run.parent in self.runs):
                self.expiry[id] = self.now + 3_600_000
            elif run.blobs:
                run.expiring = "1"
                self.expiry[id] = self.now + 60_000
                expiring.append(id)
            else:
                self._remove(run)
        runs: Reply = []
        events: Reply = []
        for queue in self._due(self.outboxes):
            if queue in resting:
                continue
            owed = self.owed[queue]
            for entry in self._due(owed):
                owed[entry] = self.now + RESEND
                if entry.startswith("run:"):
                    run = self.runs[entry.removeprefix("run:")]
                    runs.append([run.id, run.function, run.queue, str(run.queued_at)])
                else:
                    events.append([entry, self.events[entry]])
            if owed:
                self.outboxes[queue] = min(owed.values())
            else:
                del self.outboxes[queue]
        return [runs, events, timeouts, expiring, 0, []]

    def _remove(self, run: Run) -> None:
        self.children[run.parent or ""].pop(run.id, None)
        self.children.pop(run.id, None)
        del self.runs[run.id], self.expiry[run.id]

    def _is_needed(self, run: Run) -> bool:
        """Return whether a branch may be revived, which needs its memos."""
        parent = self.runs.get(run.parent or "")
        if parent is None or run.by is None:
            return False
        # The parent may be another run, with the same id.
        group = parent.groups.get(run.parent_step or "")
        outcome = group and group.outcomes.get(run.place or "")
        return not (outcome or "").startswith("done ")

    def _look(self, run: Run, lease: int) -> None:
        assert run.token is not None
        ends = self.leases[run.id]
        if self.looks.get(run.id, ("", 0, 0))[:2] == (run.token, ends):
            self._disown(run, "lost")
            self._enqueue(run, self.now)
        else:
            self.leases[run.id] = self.now + -(-lease // 3)
            self.looks[run.id] = (run.token, self.leases[run.id], ends)

    def _note_lease(self, lease: int) -> None:
        self.longest_lease = max(lease, self.longest_lease)

    def _wake(self, run: Run, timeouts: list[str]) -> None:
        if run.status != "suspended":
            return
        if run.waiting is not None:
            memo = run.memos[run.waiting]
            if memo.status == "waiting":
                assert run.becomes is not None
                memo.status = run.becomes
            run.waiting = run.becomes = None
            self._leave_line(run)
            self._unwatch(run)
            if self.unfinished[run.id]:
                self._name_orphans(run.id, timeouts)
        self._enqueue(run, self.now)

    def _look_at_parent(self, run: Run, kind: str, timeouts: list[str]) -> None:
        if kind == "end":
            self._wake(run, timeouts)
        else:
            waited = self.now - min(self.unfinished[run.id].values())
            self.parents[f"look:{run.id}"] = self.now + min(
                max(waited, DOUBT), LONGEST_LOOK
            )

    def _unwatch(self, run: Run) -> None:
        for kind in ("end", "look"):
            self.parents.pop(f"{kind}:{run.id}", None)

    def _name_orphans(self, id: str, timeouts: list[str]) -> None:
        found = [
            child
            for child, _ in sorted(self.unfinished[id].items(), key=lambda c: c[::-1])
            if self._is_orphan(self.runs[child])
        ]
        timeouts += [f"orphan:{child}" for child in found]
        if found:
            self.timers[f"orphans:{id}"] = self.now + RESEND
        else:
            self.timers.pop(f"orphans:{id}", None)

    def _is_orphan(self, child: Run) -> bool:
        if child.parent is None or child.status in FINISHED:
            return False
        return self._awaited_by(child) is None and not self._may_be_asked_for(child)

    def _may_be_asked_for(self, child: Run) -> bool:
        """Return whether a beginning that still has pages may ask for a branch."""
        parent = self.runs.get(child.parent or "")
        if parent is None or parent.status in FINISHED or child.by is None:
            return False
        group = parent.groups[child.parent_step or ""]
        memo = parent.memos.get(child.parent_step or "")
        waits = memo is not None and memo.status == "waiting"
        return waits and group.filled < group.total

    def _awaited_by(self, child: Run) -> Memo | None:
        """Return the memo that waits for a child."""
        parent = self.runs.get(child.parent or "")
        if parent is None or parent.status in FINISHED:
            return None
        if child.by is not None:
            if parent.groups[child.parent_step or ""].by != child.by:
                return None
        elif parent.generation != child.parent_generation:
            return None
        memo = parent.memos.get(child.parent_step or "")
        return memo if memo is not None and memo.status == "waiting" else None

    def _tell_parent(self, child: Run, status: str, outcome: str | None) -> str:
        assert child.parent is not None
        if self.unfinished[child.parent].pop(child.id, None) is None:
            return "0"
        memo = self._awaited_by(child)
        if memo is None:
            return "0"
        memo.status = "done" if status == "completed" else "failed"
        memo.number = self.now
        memo.payload = f"{child.parent_memo}{outcome or CANCELLED}"
        parent = self.runs[child.parent]
        if parent.status != "suspended" or parent.waiting != child.parent_step:
            return "0"
        self._unwatch(parent)
        parent.waiting = parent.becomes = None
        self._enqueue(parent)
        return str(self.now)

    def _doubt(self, run: Run) -> None:
        assert run.queued_at is not None
        emptied = self.marks.get(f"empty:{run.queue}", 0)
        delivered = self.marks.get(f"delivered:{run.queue}", 0)
        if emptied > run.queued_at + RESEND or delivered > run.queued_at + DOUBT:
            self._owe_to(run.queue, f"run:{run.id}", self.now)
        run.doubts = min(run.doubts + 1, DOUBLINGS)
        self.queued[run.id] = self.now + DOUBT * 2**run.doubts

    def _due(self, times: dict[str, int]) -> list[str]:
        due = sorted((time, name) for name, time in times.items() if time <= self.now)
        return [name for _, name in due]

    def run_expire(self, id: str) -> int:
        run = self.runs.get(id)
        if run is not None and run.expiring:
            self._remove(run)
        return int(id not in self.runs)

    def outbox_confirm(self, id: str, queued: str) -> int:
        run = self.runs.get(id)
        if run is None or str(run.queued_at) != queued:
            return 0
        self.owed[run.queue].pop(f"run:{id}", None)
        return 1

    def confirm_events(self, entries: t.Iterable[str]) -> None:
        for entry in entries:
            self.owed[EVENTS].pop(entry, None)
            self.events.pop(entry, None)

    # -- Waits ------------------------------------------------------------------------

    def event_deliver(
        self,
        name: str,
        id: str,
        text: str,
        due: int,
        is_due: str,
        look_back: int,
        size: int,
        after: str,
        limit: str,
        count: int,
        *rest: str,
    ) -> Reply:
        if due > self.now and not is_due:
            if id not in self.home.coming:
                self.home.coming[id] = text
                self.timers[f"due:{name} {id}"] = due
            return ["later"]
        options = (look_back, size, int(after), limit, rest[:count], rest[count:])
        return self.home.deliver(self.now, id, text, *options)

    def waiter_add(
        self,
        name: str,
        run: str,
        step: str,
        paths: str,
        digest: str,
        created: int,
        after: str,
        *rest: t.Any,
    ) -> Reply:
        where = (run, step, paths, digest, created, int(after))
        return self.home.add(self.now, *where, *rest)

    def waiters_remove(self, name: str, came: str, *named: str) -> int:
        if came:
            self.timers.pop(f"due:{name} {came}", None)
            self.home.coming.pop(came, None)
        return self.home.remove(named)

    def run_wake(
        self,
        id: str,
        step: str,
        event: str,
        seen: int,
        ends: str,
        payload: str,
        text: str,
        name: str,
    ) -> Reply:
        run = self.runs.get(id)
        if run is None:
            return ["settled"]
        memo = run.memos.get(step)
        if memo is not None and memo.status != "waiting":
            if memo.token != f"event:{event}":
                return ["settled"]
            return self._taken(run)
        if run.status in FINISHED:
            return ["settled"]
        if (name, event) == (NAME, run.event_id):  # all runs have this name
            return ["own"]
        end = memo.number if memo else int(ends) if ends else None
        if end is not None and seen > end:
            return ["late"]
        if self._abandoned(run):
            return ["abandoned"]
        used = self.runs[run.root or id].used
        if f"{name} {event}" in used:
            return ["used"]
        used.add(f"{name} {event}")
        order, by = run.order_of(step), f"event:{event}"
        run.memos[step] = Memo("done", by, self.now, order, payload + text)
        run.dispatches = run.attempt = 0
        if run.status == "suspended" and run.waiting == step:
            self.timers.pop(f"wake:{id}", None)
            run.waiting = run.becomes = None
            self._leave_line(run)
            self._enqueue(run)
        return self._taken(run)

    def signal_put(
        self,
        id: str,
        name: str,
        signal: str,
        data: str,
        mark: str = "",
        until: str = "",
    ) -> Reply:
        run = self.runs.get(id)
        if run is None:
            return ["missing"]
        if signal in run.signals:
            if run.signals[signal] != mark:
                return ["other"]
            return self._gave(self.runs.get(run.given.get(signal, id)))
        if run.status in FINISHED:
            return ["state", run.status]
        if until and self.now >= int(until):
            return ["over"]
        run.signals[signal] = mark
        if self._give(run, run.waiting, name, data):
            return self._gave(run)
        for wanted, _, place, step in sorted(run.line, key=lambda each: each[1]):
            branch = self.runs[place]
            if wanted == name and self._give(branch, step, name, data):
                run.given[signal] = place
                return self._gave(branch)
        run.inbox.setdefault(name, []).append(data)
        return self._gave(run)

    def _give(self, run: Run, step: str | None, name: str, data: str) -> bool:
        """Give a signal to a step that waits for it."""
        waits = run.status == "suspended" and step is not None and run.waiting == step
        if not waits or run.awaited_signal != f"{name} {step}":
            return False
        assert step is not None
        memo = run.memos[step]
        ended = memo.status != "waiting" or memo.number <= self.now
        if ended or self._abandoned(run):
            return False
        payload = memo.payload + data
        run.memos[step] = Memo("done", "signal", self.now, memo.order, payload)
        self.timers.pop(f"wake:{run.id}", None)
        run.waiting = run.becomes = None
        self._leave_line(run)
        self._enqueue(run)
        return True

    def _gave(self, run: Run | None) -> Reply:
        reply = ["taken"] if run is None else self._taken(run)
        return [*reply, run.id] if run and reply[0] == "queued" else reply

    def _leave_line(self, run: Run) -> None:
        if run.in_line is not None:
            self.runs[run.root or ""].line.remove(run.in_line)
            run.in_line = None

    def _abandoned(self, run: Run | None) -> bool:
        """True for a branch that its run, or a branch above, does not wait for."""
        while run is not None and run.kind == "branch":
            if self._is_orphan(run):
                return True
            run = self.runs.get(run.parent or "")
        return False

    def _finds_signal(self, run: Run, name: str) -> bool:
        root = self.runs[run.root or run.id]
        return root.waits_in_inbox(name) and not self._abandoned(run)

    def _taken(self, run: Run) -> Reply:
        if run.status == "queued" and f"run:{run.id}" in self.owed[run.queue]:
            return ["queued", str(run.queued_at), run.function, run.queue]
        return ["taken"]

    # -- Parts ------------------------------------------------------------------------

    def _refusal(self, run: Run | None) -> Reply:
        cancelled = run is not None and run.status == "cancelled"
        return ["cancelled" if cancelled else "lost"]

    def _left(self, run: Run | None, token: str, *, finished: bool) -> Reply | None:
        """Return the reply to the owner that gave up the run, if this is its token."""
        if run is None or run.left is None or run.left[0] != token:
            return None
        reply = run.left[1]
        return reply if (reply[0] == "finished") == finished else None

    def _full(
        self, run: Run, step: str, memo: Memo, most_steps: int, most_bytes: int
    ) -> str | None:
        before = run.memos.get(step)
        if before is None and len(run.memos) >= most_steps:
            return "steps"
        size = run.size + memo.size - (before.size if before else 0)
        return "bytes" if size > most_bytes else None

    def _own(self, run: Run, token: str, lease: int) -> None:
        run.status, run.token = "running", token
        run.dispatches += 1
        run.claimed_at = self.now
        waited = self.now - (run.queued_at if run.queued_at is not None else self.now)
        run.claimed.append([self.now, waited])
        run.started = run.started or self.now
        self.timers.pop(f"start:{run.id}", None)
        self.leases[run.id] = self.now + lease

    def _disown(self, run: Run, how: str) -> None:
        if run.token is not None:
            run.claimed[-1] += [self.now - run.claimed[-1][0], how]
        run.token = None
        self.leases.pop(run.id, None)
        self.looks.pop(run.id, None)

    def _leave(self, run: Run, reply: Reply) -> Reply:
        assert run.token is not None
        run.left = (run.token, reply)
        self._disown(run, str(reply[0]))
        return reply

    def _let_go(self, run: Run, reason: str, due: int) -> Reply:
        self._leave(run, ["suspended", str(due)])
        self._wait(run, reason, due)
        return ["suspended", str(due)]

    def _wait(self, run: Run, reason: str, due: int) -> None:
        run.status, run.reason, run.due = "suspended", reason, due
        self.timers[f"wake:{run.id}"] = due

    def _pause(self, run: Run) -> None:
        run.status = "paused"
        for kind in ("timeout", "start"):
            due = self.timers.pop(f"{kind}:{run.id}", None)
            if due is not None:
                setattr(run, f"{kind}_left", max(due - self.now, 0))

    def _owe_to(self, queue: str, entry: str, start: int) -> None:
        self.owed[queue][entry] = start
        self.outboxes[queue] = min(start, self.outboxes.get(queue, start))

    def _enqueue(self, run: Run, start: int | None = None) -> None:
        run.status, run.queued_at = "queued", self.now
        run.reason = run.due = None
        self.queued[run.id] = self.now + DOUBT
        start = self.now + RESEND if start is None else start
        self._owe_to(run.queue, f"run:{run.id}", start)
        self.arrived[run.job] += 1

    def _unqueue(self, run: Run) -> None:
        self.queued.pop(run.id, None)
        self.owed[run.queue].pop(f"run:{run.id}", None)

    def _settle(
        self, run: Run, status: str, retention: int, outcome: str | None = None
    ) -> str:
        self._disown(run, status)
        self._unqueue(run)
        for kind in ("wake", "timeout", "start"):
            self.timers.pop(f"{kind}:{run.id}", None)
        run.status, run.finished = status, self.now
        run.due = run.waiting = run.becomes = None
        run.timeout_left = run.start_left = None
        self._unwatch(run)
        self.expiry[run.id] = self.now + retention
        self._leave_orphans(run)
        if run.kind == "branch":
            self._leave_line(run)
            return self._tell_group(run, status, outcome)
        self._count(run, status)
        return "0" if run.parent is None else self._tell_parent(run, status, outcome)

    def _leave_orphans(self, run: Run) -> None:
        if self.unfinished[run.id]:
            self.timers[f"orphans:{run.id}"] = self.now

    def _count(self, run: Run, what: str) -> None:
        field = f"{run.function}:{what}"
        self.totals[field] += 1
        self.hours[self.now // 3_600_000][field] += 1

    def _owe(self, run: Run, events: t.Iterable[str]) -> None:
        for number, text in enumerate(events):
            entry = f"event:{run.id}:{run.generation}:{number}"
            self.events[entry] = text
            self._owe_to(EVENTS, entry, self.now + RESEND)

    def _arm(self, run: Run, begin: int, timeout: int, start_timeout: int) -> None:
        if timeout:
            self.timers[f"timeout:{run.id}"] = begin + timeout
        if start_timeout:
            self.timers[f"start:{run.id}"] = begin + start_timeout
