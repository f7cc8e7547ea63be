"""The scaler with real counts, real notes and a platform that the test plays."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from flask_durable.errors import PlatformError
from flask_durable.scaler import ServiceTime
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.introspectors.own import OwnQueues
from flask_durable.scaler.introspectors.own import RunSensor
from flask_durable.scaler.options import parse_pools
from flask_durable.scaler.platforms.base import Applied
from flask_durable.scaler.platforms.base import Traits
from flask_durable.scaler.pool_state import Hold
from flask_durable.scaler.pool_state import PoolState
from flask_durable.scaler.records import complaints
from flask_durable.scaler.records import headline
from flask_durable.scaler.scaler import Busy
from flask_durable.scaler.scaler import Report
from flask_durable.scaler.scaler import Scaler

from ..store.kit import Kit


class Stage:
    """A platform and a directory of workers."""

    def __init__(self) -> None:
        self.traits = Traits(picks_victims=True)
        self.asked = 0
        self.workers_up: list[dict[str, t.Any]] = []
        self.victims: t.Sequence[str] = ()
        self.refuses = False
        self.limit = 1000

    def describe(self) -> str:
        return "stage"

    def read(self) -> Size:
        up = len(self.workers_up)
        return Size(self.asked, up, max(self.asked - up, 0))

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        if self.refuses:
            raise PlatformError("The platform refuses.")
        limit = self.limit if workers > self.limit else None
        workers = min(workers, self.limit)
        before, self.asked, self.victims = self.asked, workers, victims
        return Applied(before, workers, limit)

    def workers(self) -> list[dict[str, t.Any]]:
        return self.workers_up

    def up(
        self,
        count: int,
        busy: int = 0,
        ready_at: float = 0.0,
        draining: bool = False,
        name: str = "unit",
    ) -> None:
        """Have *count* workers, of whom the first *busy* say that they have a run."""
        self.asked = count
        self.workers_up = [
            {
                "unit": f"{name}-{number}",
                "process": f"{name}-{number}",
                "queues": ["media"],
                "threads": 2,
                "busy": int(number < busy),
                "ready_at": ready_at,
                "draining": draining,
            }
            for number in range(count)
        ]


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def make(kit: Kit, stage: Stage) -> t.Callable[..., Scaler]:
    def make(events: int = 0, mean: float | None = 2.0, **options: t.Any) -> Scaler:
        given = {"desired_wait": 10, "slots": 1, "boot": 0, "window": 0, **options}
        given = {key: value for key, value in given.items() if value is not None}
        [pool] = parse_pools({"media": given})
        known = {"work": ServiceTime(mean)} if mean else {}
        sensor = RunSensor(kit.server, kit.keys, pool.queues)
        queues = OwnQueues(pool.queues, sensor, stage, lambda: events)
        return Scaler(
            pool,
            introspector=queues,
            platform=stage,
            pool_state=PoolState(kit.server, kit.keys, pool.name),
            service_times=lambda functions: known,
            deserted=queues.are_deserted,
        )

    return make


def test_it_asks_for_what_the_runs_that_wait_need(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    for _ in range(20):
        kit.queued(queue="media")

    report = make().run()

    # Each worker starts six in ten seconds: at 0, 2, … 10.
    assert stage.asked == report.decision.workers == 4
    assert "media: 20 waiting" in headline(report.record)
    assert "0 → 4 (work)" in headline(report.record)


def test_each_queue_of_a_pool_has_a_wait_of_its_own(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    for _ in range(20):
        kit.queued(queue="media")
    queues = {"mail": "3s", "media": "40s"}

    assert make(desired_wait=None, queues=queues).run().decision.workers == 1
    kit.queued(queue="mail", function="letter")
    kit.queued(queue="mail", function="letter")
    kit.queued(queue="mail", function="letter")
    # Two workers start four jobs of 2 s in 3 s, and the others in time.
    assert make(desired_wait=None, queues=queues).run().decision.workers == 2


def test_a_dry_run_changes_and_leaves_nothing(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    kit.queued(queue="media")
    before = kit.dump()

    report = make().run(dry=True)

    assert report.decision.action == "up"
    assert stage.asked == 0
    assert kit.dump() == before


def test_idle_workers_are_named_when_some_are_to_go(
    make: t.Callable[..., Scaler], stage: Stage
) -> None:
    stage.up(4, busy=1)
    make().run()
    assert stage.asked == 1
    assert set(stage.victims) == {"unit-1", "unit-2", "unit-3"}


def test_two_looks_remember_what_was_needed(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    scaler = make(window="10m")
    ids = [kit.queued(queue="media") for _ in range(20)]
    scaler.run()
    stage.up(4)
    for id in ids:
        kit.claim(id)
        kit.finish(id)

    report = scaler.run()

    assert (report.decision.action, report.decision.reason) == ("hold", "recent need")
    assert [r["action"] for r in scaler.pool_state.history(10)] == ["hold", "up"]


def test_notes_of_another_version_are_forgotten(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    kit.queued(queue="media")
    for text in ('{"memory": {"needs": []}}', "[]", "not JSON"):
        stage.asked = 0
        kit.client.set(f"{kit.keys.root}:scale:media", text)
        assert make().run().decision.action == "up"


def test_a_server_whose_clock_goes_back_does_not_stop_the_scaler(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    scaler = make(boot="30s")
    kit.queued(queue="media")
    scaler.run()
    notes = scaler.pool_state.read()
    ahead = notes.looked + 300
    scaler.pool_state.write(
        dataclasses.replace(notes, looked=ahead, changed=ahead, asked=(ahead,))
    )
    for _ in range(20):
        kit.queued(queue="media")
    assert scaler.run().decision.action == "up"


def test_boot_times_are_measured(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    scaler = make(boot="30s", desired_wait=100)
    kit.queued(queue="media")
    scaler.run()
    assert scaler.run().record["observation"]["booting"] == 1
    asked = scaler.pool_state.read().asked[0]

    stage.up(1, ready_at=asked + 7)
    scaler.run()

    notes = scaler.pool_state.read()
    assert notes.asked == ()
    assert notes.boots == pytest.approx((7.0,))
    assert scaler.run().record["observation"]["boot"] == pytest.approx(7)


def test_only_one_scaler_is_at_a_pool(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    scaler = make()
    token = scaler.pool_state.lock()
    assert token is not None
    with pytest.raises(Busy):
        make().run()
    scaler.pool_state.unlock("of somebody else")
    with pytest.raises(Busy):
        make().run()
    scaler.pool_state.unlock(token)
    make().run()


def test_a_platform_that_refuses_is_in_the_record(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    kit.queued(queue="media")
    stage.refuses = True
    scaler = make(period=1)

    report = scaler.run()

    assert report.error is not None
    assert complaints(scaler.pool_state.history(1)[0]) == ["The platform refuses."]
    stage.refuses = False
    assert scaler.run().decision.action == "up"


def test_what_a_person_orders_holds_for_its_time(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    scaler = make()
    scaler.pool_state.order(Hold(7, "set to 7 by hand"), 60)
    assert scaler.run().decision.workers == stage.asked == 7
    scaler.pool_state.order(Hold(None, "paused by hand"), 60)
    assert scaler.run().decision.action == "hold"
    assert 0 < kit.client.pttl(f"{kit.keys.root}:scale:media:hold") <= 60_000
    assert scaler.pool_state.resume()
    assert scaler.run().decision.action == "down"


def test_workers_that_drain_are_not_the_ones_that_were_asked_for(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    for number in range(4):
        kit.running(f"old-{number}.1", queue="media")
    stage.up(4, busy=4, draining=True, name="old")
    stage.asked = 3
    scaler = make(boot="30s", slots=None)
    seen = scaler.run(dry=True).record["observation"]
    assert (seen["ready"], seen["booting"], seen["running"]) == (0, 3, 0)
    assert seen["slots"] == 2, "those of workers that drain are known"

    drained = stage.workers_up
    stage.up(3)
    stage.workers_up += drained
    kit.running("unit-1.1", queue="media")
    report = scaler.run()
    seen = report.record["observation"]
    assert (seen["ready"], seen["booting"], seen["running"]) == (3, 0, 1)
    assert (report.decision.action, stage.asked) == ("down", 1)
    assert set(stage.victims) == {"unit-0", "unit-2"}


def test_who_took_a_run_is_known_before_it_says_so(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    kit.running("unit-1.7", queue="media")
    stage.up(2)
    report = make(drains=False).run()
    assert (stage.asked, report.decision.reason) == (2, "a busy worker might go")
    # Another has ended one, which it has not said either.
    stage.up(3, busy=1)
    stage.workers_up[0]["busy"] = 0
    make().run()
    assert stage.asked == 1
    assert set(stage.victims) == {"unit-0", "unit-2"}


def test_runs_of_workers_that_are_gone_free_no_slots_and_nobody_goes(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    kit.running("gone.1", queue="media")
    stage.up(2)
    stage.asked = 3  # it is still asked for, and nobody hears it
    scaler = make(boot="30s", window=None)
    for _ in range(4):
        assert scaler.run().decision.action == "hold"
    for number in range(10):
        kit.running(f"gone-{number}.1", queue="media")
        kit.queued(queue="media")
    stage.up(0)
    assert make(mean=8.0, slots=2).run().decision.action == "up"
    assert stage.asked > 1


def test_the_run_of_a_worker_that_is_gone_takes_another_one(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    kit.running("gone.1", queue="media")
    for _ in range(4):
        make().run()
    assert stage.asked == 1


def test_push_workers_have_no_threads_and_do_not_drain(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    stage.up(3)
    for number, worker in enumerate(stage.workers_up):
        worker["threads"] = 0
        kit.running(f"unit-{number}.1", queue="media")
    scaler = make(slots=None)
    seen = scaler.run().record["observation"]
    assert (seen["ready"], seen["booting"], seen["slots"]) == (3, 0, 1)
    assert stage.asked == 3
    kit.queued(queue="media")
    assert not scaler.is_needed()


def test_workers_of_another_version_do_not_say_whether_they_drain(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    stage.up(3)
    for worker in stage.workers_up:
        del worker["draining"], worker["process"]
    kit.running(queue="media")
    assert make().run().decision.action == "hold"
    kit.queued(queue="media")
    assert not make().is_needed()


def test_a_platform_that_said_its_limit_is_not_asked_for_more_each_time(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    for _ in range(40):
        kit.queued(queue="media")
    stage.limit = 2
    scaler = make()
    asked = []
    for _ in range(3):
        report = scaler.run()
        asked.append(report.applied and report.applied.after)
        assert stage.asked == 2
    assert asked == [2, None, None]
    stage.asked = 0
    assert scaler.run().applied == Applied(0, 2), "it is not asked for more than that"
    assert scaler.run().applied is None
    assert (report.decision.action, report.decision.reason) == ("hold", "maximum")
    assert "platform-limit" in {v.code for v in report.decision.verdicts}

    stage.limit, stage.asked = 5, 4
    assert scaler.run().decision.action == "up", "another worker was given more"
    stage.limit, stage.asked = 5, 2
    notes = dataclasses.replace(scaler.pool_state.read(), limit=2)
    scaler.pool_state.write(dataclasses.replace(notes, limited=notes.looked - 601))
    scaler.run()
    assert stage.asked == 5, "some time later it is"


def missing_for(scaler: Scaler, seconds: float) -> Report:
    """Run *scaler* as if workers had been missing for so long."""
    notes = scaler.pool_state.read()
    assert notes.missing_since
    earlier = dataclasses.replace(notes, missing_since=notes.looked - seconds)
    scaler.pool_state.write(earlier)
    return scaler.run()


def codes(report: Report) -> set[str]:
    return {verdict.code for verdict in report.decision.verdicts}


def test_workers_that_were_asked_for_and_do_not_come_up_are_told_of(
    make: t.Callable[..., Scaler], stage: Stage
) -> None:
    scaler = make(boot=30, minimum=4)
    assert "workers-missing" not in codes(scaler.run())
    assert stage.asked == 4
    assert "workers-missing" not in codes(scaler.run()), "they are on their way"
    assert "workers-missing" not in codes(missing_for(scaler, 200))
    report = missing_for(scaler, 1200)
    assert "workers-missing" in codes(report)
    assert f"{stage.asked} of {stage.asked} workers" in complaints(report.record)[-1]
    assert "none has for 20 min" in complaints(report.record)[-1]

    # One comes: the others are given their time again.
    asked = stage.asked
    stage.up(1)
    stage.asked = asked
    assert "workers-missing" not in codes(scaler.run())
    report = missing_for(scaler, 1200)
    assert f"{asked - 1} of {asked} workers" in complaints(report.record)[-1]
    stage.up(asked)
    assert "workers-missing" not in codes(scaler.run())
    assert not scaler.pool_state.read().missing_since


def test_workers_that_boot_for_long_are_given_more_time(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    kit.queued(queue="media")
    scaler = make(boot=400)
    scaler.run()
    scaler.run()
    assert "workers-missing" not in codes(missing_for(scaler, 1900))
    assert "workers-missing" in codes(missing_for(scaler, 2100))


def test_a_lock_whose_reply_was_lost_is_the_callers(
    make: t.Callable[..., Scaler], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool_state = make().pool_state
    client = pool_state._server.client
    for name in ("set", "delete"):
        once = getattr(client, name)

        def twice(*args: t.Any, once: t.Any = once, **options: t.Any) -> t.Any:
            once(*args, **options)
            return once(*args, **options)

        # The client repeats a call whose reply did not come.
        monkeypatch.setattr(client, name, twice)
    token = pool_state.lock()
    assert token is not None
    assert pool_state.lock() is None, "it is taken"
    pool_state.unlock(token)
    assert pool_state.lock() is not None

    pool_state.order(Hold(3, "by hand"), 60)
    assert pool_state.resume()
    assert not pool_state.resume()


def test_only_workers_that_take_something_are_there_for_what_comes(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    stage.up(1)
    stage.workers_up[0]["queues"] = ["mail"]
    assert not make(events=500).is_needed(), "a worker of other queues routes them"
    kit.queued(queue="media")
    assert make().is_needed()
    stage.up(1, draining=True)
    assert make().is_needed()
    stage.up(1)
    assert not make().is_needed()


def test_events_that_nobody_routes_take_a_worker(
    make: t.Callable[..., Scaler], stage: Stage
) -> None:
    assert make(events=500).is_needed()
    make(events=500).run()
    assert stage.asked == 1
    stage.up(1)
    assert not make(events=500).is_needed()


def test_a_platform_that_is_slow_to_change_is_left_alone_for_a_while(
    kit: Kit, make: t.Callable[..., Scaler], stage: Stage
) -> None:
    stage.traits = Traits(period=600)
    scaler = make()
    kit.queued(queue="media")
    scaler.run()
    for _ in range(50):
        kit.queued(queue="media")
    report = scaler.run()
    assert (report.decision.action, stage.asked) == ("hold", 1)


def test_a_platform_that_keeps_one_worker_does_so_in_a_pool_that_may_have_none(
    make: t.Callable[..., Scaler], stage: Stage
) -> None:
    stage.traits = Traits(reaches_zero=False, picks_victims=True)
    stage.up(3)
    make(maximum=0).run()
    assert stage.asked == 1


def test_a_platform_that_keeps_one_worker_is_never_asked_for_none(
    make: t.Callable[..., Scaler], stage: Stage
) -> None:
    stage.traits = Traits(reaches_zero=False, picks_victims=True)
    stage.up(3)
    scaler = make()
    for _ in range(3):
        scaler.run()
    assert stage.asked == 1
