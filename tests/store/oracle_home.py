"""The duties of the scripts for waits without Redis: the home of one event name."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from dataclasses import field

Reply = list[t.Any]


class Seen(t.NamedTuple):
    """An event that was seen before."""

    stamp: int
    digests: tuple[str, ...]
    text: str

    @property
    def entry(self) -> str:
        return f"{self.stamp} {','.join(self.digests)}\n{self.text}"


class Wait(t.NamedTuple):
    """A registered wait."""

    stamp: int
    ends: int
    digest: str
    payload: str


@dataclass
class Home:
    """One name, on a clock that its caller moves."""

    name: str
    recent: dict[str, Seen] = field(default_factory=dict)
    waits: dict[tuple[str, str], Wait] = field(default_factory=dict)
    paths: dict[str, tuple[int, int]] = field(default_factory=dict)
    coming: dict[str, str] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)

    def stamp(self, now: int) -> int:
        # The frozen clock stands at the last microsecond of its millisecond.
        stamp = max(now * 1000 + 999, self.kept.get("last", 0) + 1)
        self.kept["last"] = stamp
        return stamp

    def deliver(
        self,
        now: int,
        id: str,
        text: str,
        look_back: int,
        size: int,
        after: int,
        limit: str,
        paths: t.Sequence[str],
        digests: t.Sequence[str],
    ) -> Reply:
        self.paths = {s: used for s, used in self.paths.items() if used[1] >= now}
        if not set(self.paths) <= set(paths):
            return ["paths", *self.paths]
        if id not in self.recent:
            self.recent[id] = Seen(self.stamp(now), tuple(digests), text)
            self.kept.setdefault("since", 0)
            self._prune(now, look_back, size)
        seen = self.recent[id]
        found = sorted(
            (wait.stamp, *member, wait)
            for member, wait in self.waits.items()
            if wait.digest in ("", *digests) and after < wait.stamp
        )
        limit = limit or str(self.kept["last"])
        return [
            "waits",
            str(seen.stamp // 1000),
            "",
            limit,
            *(
                [run, step, str(stamp), str(wait.ends), wait.payload]
                for stamp, run, step, wait in found
                if stamp <= int(limit)
            ),
        ]

    def _prune(self, now: int, look_back: int, size: int) -> None:
        while len(self.recent) > 1:
            oldest = min(self.recent, key=lambda id: self.recent[id].stamp)
            seen = self.recent[oldest]
            over = self.bytes > size
            if not over and seen.stamp // 1000 >= now - look_back:
                return
            del self.recent[oldest]
            if over:
                self.kept["cut"] = self.kept.get("cut", 0) + 1
                self.kept["cut_at"] = seen.stamp

    @property
    def bytes(self) -> int:
        return sum(len(seen.entry.encode()) for seen in self.recent.values())

    def add(
        self,
        now: int,
        run: str,
        step: str,
        paths: str,
        digest: str,
        created: int,
        after: int,
        ends: str,
        payload: str,
        look_back: int,
        learned: str,
    ) -> Reply:
        self.kept.setdefault("since", now if learned else 0)
        cut_at = self.kept.get("cut_at", 0) // 1000
        known = str(max(cut_at, self.kept["since"], now - look_back))
        if (wait := self.waits.get((run, step))) is not None:
            if wait.digest == digest and wait.stamp // 1000 >= created:
                return ["waiting", str(wait.ends), known]
            del self.waits[run, step]
        end = int(ends[1:]) if ends.startswith("@") else now + int(ends)
        if paths:
            first, last = self.paths.get(paths) or (self.stamp(now), 0)
            self.paths[paths] = (first, max(last, end + look_back))
            if first // 1000 >= created and after < first:
                return ["unsorted", str(first), known]
        fitting = sorted(
            (seen.stamp, id, seen.text)
            for id, seen in self.recent.items()
            if digest in ("", *seen.digests)
            and (seen.stamp > after if after >= created * 1000 else True)
            and seen.stamp >= created * 1000
        )[:10]
        if fitting:
            events = [[id, str(stamp // 1000), text] for stamp, id, text in fitting]
            return ["events", str(fitting[-1][0]), known, *events]
        self.waits[run, step] = Wait(self.stamp(now), end, digest, payload)
        return ["waiting", str(end), known]

    def remove(self, named: t.Sequence[str]) -> int:
        for run, step, stamp in zip(named[::3], named[1::3], named[2::3], strict=True):
            wait = self.waits.get((run, step))
            if wait is not None and str(wait.stamp) == stamp:
                del self.waits[run, step]
        return len(named) // 3

    def sweep(self, now: int) -> None:
        over = [m for m, wait in self.waits.items() if wait.ends <= now - 3_600_000]
        for member in over:
            del self.waits[member]

    def view(self) -> dict[str, t.Any]:
        """Return all that is stored of the name, by key."""
        found: dict[str, t.Any] = {
            f"recent:{self.name}": {id: s.entry for id, s in self.recent.items()},
            f"recent:{self.name}|": {id: s.stamp for id, s in self.recent.items()},
            f"paths:{self.name}": {
                paths: f"{first} {last}" for paths, (first, last) in self.paths.items()
            },
            f"waits:{self.name}": {
                f"{run} {step}": f"{w.stamp} {w.ends} {w.digest}\n{w.payload}"
                for (run, step), w in self.waits.items()
            },
            "waits": {
                f"{self.name} {run} {step}": wait.ends
                for (run, step), wait in self.waits.items()
            },
            "coming": {f"{self.name} {id}": text for id, text in self.coming.items()},
            f"kept:{self.name}": {n: str(v) for n, v in self.kept.items()},
        }
        if self.recent:
            found[f"kept:{self.name}"]["bytes"] = str(self.bytes)
        for id, seen in self.recent.items():
            for digest in seen.digests:
                found.setdefault(f"recent:{self.name}|{digest}", {})[id] = seen.stamp
        for (run, step), wait in self.waits.items():
            key = f"waiters:{self.name}|{wait.digest}"
            found.setdefault(key, {})[f"{run} {step}"] = wait.stamp
        return found


def path_sets(count: int) -> list[str]:
    """Return some path sets."""
    return [json.dumps([f"data.p{number}"]) for number in range(count)]
