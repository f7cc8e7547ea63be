"""The scaler of a pool whose queues are not ours, with what the test lets it see."""

from __future__ import annotations

import time
import typing as t

import pytest

from flask_durable.errors import PlatformError
from flask_durable.scaler import Pool
from flask_durable.scaler import Running
from flask_durable.scaler import ServiceTime
from flask_durable.scaler import Waiting
from flask_durable.scaler.decision.fleet import fleet_of
from flask_durable.scaler.decision.fleet import Silence
from flask_durable.scaler.decision.fleet import Unit
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.introspectors.base import QueueSnapshot
from flask_durable.scaler.options import parse_pools
from flask_durable.scaler.platforms.base import Applied
from flask_durable.scaler.platforms.base import Traits
from flask_durable.scaler.pool_state import PoolState
from flask_durable.scaler.scaler import Scaler

from ..store.kit import Kit

POOL = Pool(slots=1, boot=30)


class Legacy:
    """A queue of another library, and the platform that runs its workers."""

    traits = Traits(picks_victims=True)

    def __init__(self, silence: Silence = "booting", slots: int = 1) -> None:
        self.silence: Silence = silence
        self.slots = slots
        self.asked = 0
        self.jobs = 0
        self.running = 0
        self.units: tuple[Unit, ...] = ()
        self.breaks = False

    def look(self, horizon: float) -> QueueSnapshot:
        if self.breaks:
            raise PlatformError("No answer.", code="platform.unavailable")
        return QueueSnapshot(
            time.time(),
            (Waiting("work", self.jobs),) if self.jobs else (),
            (Running("work", 0.0),) * self.running,
            (),
            {},
            {"work": "legacy"},
            units=self.units,
        )

    def describe(self) -> str:
        return "legacy"

    def read(self) -> Size:
        return Size(self.asked, self.asked, 0)

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        before, self.asked = self.asked, workers
        return Applied(before, workers)


def scaler_of(kit: Kit, legacy: Legacy, **options: t.Any) -> Scaler:
    given = {
        **{"desired_wait": 10, "slots": 1, "boot": 0, "window": 0},
        **{"introspector": "rq", "platform": "fixed"},
        **options,
    }
    given = {name: value for name, value in given.items() if value is not None}
    [pool] = parse_pools({"legacy": given})
    return Scaler(
        pool,
        introspector=legacy,
        platform=legacy,
        pool_state=PoolState(kit.server, kit.keys, pool.name),
        service_times=lambda functions: dict.fromkeys(functions, ServiceTime(2.0)),
    )


def test_the_pool_grows_to_what_waits(kit: Kit) -> None:
    legacy = Legacy()
    legacy.jobs = 20
    report = scaler_of(kit, legacy).run()
    assert report.decision.action == "up"
    assert legacy.asked == report.decision.workers > 1


def test_what_cannot_be_looked_at_holds_the_pool_or_raises_it(kit: Kit) -> None:
    legacy = Legacy()
    legacy.asked, legacy.breaks = 3, True
    report = scaler_of(kit, legacy).run()
    assert report.decision.action == "hold"
    assert report.decision.reason == "a sensor failed"
    assert "No answer." in str(report.record)
    assert legacy.asked == 3
    scaler_of(kit, legacy, fallback=5).run()
    assert legacy.asked == 5


def test_workers_that_are_not_ours_are_not_trusted_to_end_their_jobs(kit: Kit) -> None:
    legacy = Legacy()
    legacy.asked, legacy.running = 3, 1
    legacy.units = (Unit("a", 1, 1, 0.0), Unit("b", 1, 0, 0.0), Unit("c", 1, 0, 0.0))
    assert scaler_of(kit, legacy).run().decision.reason == "a busy worker might go"
    assert legacy.asked == 3
    scaler_of(kit, legacy, drains=True).run()
    assert legacy.asked == 1


@pytest.mark.parametrize(
    ("silence", "ready", "busy", "booting"),
    [("booting", 1, 1, 3), ("idle", 4, 1, 0), ("busy", 4, 4, 0)],
)
def test_a_worker_that_is_not_heard_of_is_what_the_introspector_says(
    silence: Silence, ready: int, busy: int, booting: int
) -> None:
    units = [Unit("a", 1, 1, 0.0)]
    fleet = fleet_of(units, Size(4, 4, 0), (), POOL, 1000.0, silence)
    assert (fleet.ready, fleet.busy, len(fleet.booting)) == (ready, busy, booting)


def test_processes_are_not_taken_for_workers_that_have_several() -> None:
    processes = [Unit(name, 4, 4, 0.0) for name in "abcd"]
    fleet = fleet_of(processes, Size(3, 3, 0), (990.0,), Pool(8, 30), 1000.0, "idle")
    assert (fleet.ready, fleet.busy, fleet.booting) == (2, 2, (20.0,))


def test_workers_that_are_too_busy_to_answer_hold_their_slots(kit: Kit) -> None:
    legacy = Legacy("busy", slots=4)
    legacy.asked, legacy.jobs, legacy.running = 3, 1, 1
    legacy.units = (Unit("a", 4, 1, 0.0),)
    seen = scaler_of(kit, legacy, slots=None).run(dry=True).record["observation"]
    assert (seen["running"], seen["busy_workers"], seen["slots"]) == (1 + 2 * 4, 3, 4)
    legacy.silence = "booting"
    seen = scaler_of(kit, legacy, slots=None).run(dry=True).record["observation"]
    assert (seen["running"], seen["busy_workers"], seen["booting"]) == (1, 1, 2)


@pytest.mark.parametrize("silence", ["booting", "busy"])
def test_a_boot_that_takes_longer_than_expected_is_measured(
    kit: Kit, silence: Silence
) -> None:
    legacy = Legacy(silence)
    legacy.jobs = 20
    scaler = scaler_of(kit, legacy)
    scaler.run()  # a boot is expected to take no time at all
    scaler.run()
    legacy.units = (Unit("a", 1, 0, time.time() + 300),)
    scaler.run()
    [boot] = scaler.pool_state.read().boots
    assert boot == pytest.approx(300, abs=60)


def test_the_slots_of_a_worker_are_the_introspectors_until_one_is_up(kit: Kit) -> None:
    legacy = Legacy(slots=3)
    seen = scaler_of(kit, legacy, slots=None).run(dry=True).record["observation"]
    assert seen["slots"] == 3
    legacy.asked, legacy.units = 1, (Unit("a", 5, 1, 0.0),)
    seen = scaler_of(kit, legacy, slots=None).run(dry=True).record["observation"]
    assert seen["slots"] == 5


def test_workers_that_boot_for_long_are_not_taken_for_busy_ones(kit: Kit) -> None:
    legacy = Legacy("busy")
    legacy.jobs = 10
    scaler = scaler_of(kit, legacy, boot=0, desired_wait=3)
    sizes = []
    for _ in range(4):
        scaler.run()
        sizes.append(legacy.asked)
    assert sizes == [sizes[0]] * 4
    # Nor do they go, as they may be at work.
    legacy.jobs = 0
    assert scaler.run().record["observation"]["booting"] == sizes[0]
    assert legacy.asked == sizes[0]


def test_none_goes_while_one_has_a_job_and_has_not_said_so(kit: Kit) -> None:
    legacy = Legacy()
    legacy.asked, legacy.units = 3, (Unit("a", 4, 0, 0.0), Unit("b", 4, 2, 0.0))
    legacy.units += (Unit("c", 4, 0, 0.0),)
    legacy.running = 3
    report = scaler_of(kit, legacy, drains=True, slots=4).run()
    assert (report.decision.action, legacy.asked) == ("hold", 3)
    legacy.running = 2
    scaler_of(kit, legacy, drains=True, slots=4).run()
    assert legacy.asked == 1


def test_jobs_of_workers_that_are_on_their_way_out_free_no_slots(kit: Kit) -> None:
    legacy = Legacy()
    legacy.asked, legacy.units = 2, (Unit("a", 4, 4, 0.0), Unit("b", 4, 4, 0.0))
    legacy.running = 20
    report = scaler_of(kit, legacy, drains=True, slots=4).run(dry=True)
    assert report.record["observation"]["running"] == 8


def test_a_worker_that_was_asked_for_just_now_boots_also_where_it_is_silent(
    kit: Kit,
) -> None:
    legacy = Legacy("idle")
    legacy.jobs = 20
    scaler = scaler_of(kit, legacy, boot=3600)
    scaler.run()
    assert scaler.run(dry=True).record["observation"]["booting"] == legacy.asked


def test_a_pool_that_is_introspected_is_not_watched_between_runs(kit: Kit) -> None:
    legacy = Legacy()
    legacy.jobs = 20
    assert not scaler_of(kit, legacy).is_needed()


def test_the_queue_with_the_shortest_wait_comes_first() -> None:
    [pool] = parse_pools({"pool": {"queues": {"patient": "60s", "urgent": "5s"}}})
    assert [*pool.queues.items()] == [("urgent", 5), ("patient", 60)]


def test_a_local_pool_cannot_run_workers_of_others() -> None:
    with pytest.raises(ValueError, match="a platform that is not local"):
        parse_pools({"legacy": {"desired_wait": 10, "introspector": "rq"}})
