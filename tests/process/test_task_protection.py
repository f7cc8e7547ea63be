"""A worker in a task of Amazon ECS."""

from __future__ import annotations

from ..scaler.http_server import serving
from ..support.servers import wait_until
from ..worker.test_task_protection import Agent
from ..worker.test_task_protection import GIVE_UP
from ..worker.test_task_protection import PROTECT
from .sites import Site


def test_a_worker_protects_its_task_only_if_it_is_told_to(site: Site) -> None:
    with serving(Agent()) as agent:
        worker = site.ready(ECS_AGENT_URI=agent.url)
        site.send("work/long", "first", pace=0)
        site.are("completed", "first")
        worker.signal(15)
        assert worker.wait() == 0
        assert agent.asked == []

        worker = site.ready(
            ECS_AGENT_URI=agent.url, FLASK_DURABLE_ECS_PROTECTION="true"
        )
        site.send("work/long", "second", pace=2)
        wait_until(lambda: agent.asked == [PROTECT])
        site.are("completed", "second")
        worker.signal(15)
        assert worker.wait() == 0
        assert agent.asked == [PROTECT, GIVE_UP]
