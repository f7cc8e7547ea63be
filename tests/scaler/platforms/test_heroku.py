"""The dynos of a process type, by a server that keeps the rules of Heroku's API."""

from __future__ import annotations

import typing as t

import pytest

from flask_durable.errors import ConfigurationError
from flask_durable.errors import PlatformError
from flask_durable.scaler.decision.observation import Size
from flask_durable.scaler.platforms import make_platform
from flask_durable.scaler.platforms.base import Applied
from flask_durable.scaler.platforms.base import Platform

from ..http_server import FakeServer
from ..http_server import Reply
from ..http_server import Request
from ..http_server import serving

TOKEN = "HRKU-5ecret"


class Heroku(FakeServer):
    """One app with two process types. New dynos are starting until :meth:`boot`."""

    limit: int | None = None
    #: Dynos of other apps, which share the limit.
    others = 0

    def __init__(self) -> None:
        super().__init__()
        self.dynos = {"media": ["up"], "web": ["up", "up"]}

    def boot(self) -> None:
        self.dynos["media"] = ["up"] * len(self.dynos["media"])

    def answer(self, request: Request) -> Reply:
        if request.headers.get("Accept") != "application/vnd.heroku+json; version=3":
            return refused(406, "not_acceptable", "Specify a version")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return refused(401, "unauthorized", "Invalid credentials provided.")
        if request.path == "/apps/shop/dynos":
            return Reply(200, self._listed())
        process = request.path.removeprefix("/apps/shop/formation/")
        if process not in self.dynos:
            return refused(404, "not_found", "Couldn't find that process type.")
        if request.method == "PATCH":
            return self._scaled(process, request.body["quantity"])
        return self._formation(process)

    def _listed(self) -> list[dict[str, str]]:
        return [
            {"type": process, "state": state, "name": f"{process}.{number}"}
            for process, states in self.dynos.items()
            for number, state in enumerate(states, 1)
        ]

    def _scaled(self, process: str, quantity: int) -> Reply:
        if self.limit is not None and quantity > self.limit - self.others:
            message = f"Cannot run more than {self.limit} dynos"
            more = {"limit": self.limit, "size": quantity}
            return refused(422, "cannot_run_above_limit", message, **more)
        states = self.dynos[process]
        more_states = ["starting"] * (quantity - len(states))
        self.dynos[process] = states[:quantity] + more_states
        return self._formation(process)

    def _formation(self, process: str) -> Reply:
        return Reply(200, {"type": process, "quantity": len(self.dynos[process])})


def refused(status: int, id: str, message: str, **more: t.Any) -> Reply:
    return Reply(status, {"id": id, "message": message, **more})


@pytest.fixture
def heroku() -> t.Iterator[Heroku]:
    with serving(Heroku()) as server:
        yield server


def pool(heroku: Heroku, **options: object) -> Platform:
    made = {"platform": "heroku", "app": "shop", "process": "media", "token": TOKEN}
    return make_platform({**made, "url": heroku.url, **options})


def test_a_pool_grows_boots_and_shrinks(heroku: Heroku) -> None:
    platform = pool(heroku)
    assert platform.describe() == "heroku:shop:media"
    assert platform.read() == Size(asked=1, running=1, booting=0)
    assert platform.resize(5) == Applied(before=1, after=5)
    assert platform.read() == Size(asked=5, running=1, booting=4)
    heroku.boot()
    assert platform.read() == Size(asked=5, running=5, booting=0)
    assert platform.resize(0) == Applied(before=5, after=0)
    assert platform.read() == Size(asked=0, running=0, booting=0)
    assert heroku.dynos["web"] == ["up", "up"]


def test_a_dyno_that_crashed_is_on_its_way(heroku: Heroku) -> None:
    heroku.dynos["media"] = ["up", "crashed", "starting"]
    assert pool(heroku).read() == Size(asked=3, running=1, booting=2)


def test_the_size_that_there_is_is_not_set(heroku: Heroku) -> None:
    assert pool(heroku).resize(1) == Applied(before=1, after=1)
    assert not heroku.made("PATCH")


def test_a_limit_is_used_up_and_told(heroku: Heroku) -> None:
    heroku.limit = 3
    platform = pool(heroku)
    assert platform.resize(11) == Applied(before=1, after=3, limit=3)
    assert len(heroku.dynos["media"]) == 3
    assert platform.resize(11) == Applied(before=3, after=3, limit=3)


@pytest.mark.parametrize("others", range(11))
@pytest.mark.parametrize("wanted", [2, 8, 10, 30])
def test_what_others_leave_of_a_limit_is_got_and_no_more_than_wanted_is_asked_for(
    heroku: Heroku, others: int, wanted: int
) -> None:
    heroku.limit, heroku.others = 10, others
    applied = pool(heroku).resize(wanted)
    there = max(min(wanted, 10 - others), 1)
    assert applied.after == len(heroku.dynos["media"]) == there
    assert applied.limit == (None if there == wanted else there)
    asked = [request.body["quantity"] for request in heroku.made("PATCH")]
    assert max(asked) == wanted
    assert len(asked) <= 6
    assert len(set(asked)) == len(asked)


def test_a_limit_below_what_runs_takes_nothing_away(heroku: Heroku) -> None:
    heroku.dynos["media"] = ["up"] * 4
    heroku.limit = 2
    assert pool(heroku).resize(6) == Applied(before=4, after=4, limit=2)
    assert len(heroku.dynos["media"]) == 4


def test_a_limit_without_a_number_is_an_error(heroku: Heroku) -> None:
    platform = pool(heroku)
    formation = heroku._formation("media")
    heroku.failures = [formation, refused(422, "cannot_run_above_limit", "Too many")]
    with pytest.raises(PlatformError, match="Too many") as caught:
        platform.resize(11)
    assert caught.value.code == "platform.limit"


def test_a_wrong_token_is_told_without_it(heroku: Heroku) -> None:
    platform = pool(heroku, token="wr0ng-t0ken")
    with pytest.raises(PlatformError, match="Invalid credentials") as caught:
        platform.read()
    assert caught.value.code == "platform.auth"
    assert "wr0ng" not in f"{caught.value} {platform!r} {platform.describe()}"


def test_the_token_is_found_in_the_environment(
    heroku: Heroku, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEROKU_API_KEY", f"{TOKEN}\n")
    assert pool(heroku, token=None).read().asked == 1
    monkeypatch.delenv("HEROKU_API_KEY")
    with pytest.raises(ConfigurationError, match="Set HEROKU_API_KEY"):
        pool(heroku, token=None)


def test_a_token_that_cannot_be_sent_is_not_shown(heroku: Heroku) -> None:
    with pytest.raises(ConfigurationError) as caught:
        pool(heroku, token="two\nl1nes")
    assert "l1nes" not in str(caught.value)


def test_a_process_type_that_does_not_exist_is_told(heroku: Heroku) -> None:
    with pytest.raises(PlatformError, match="find that process type") as caught:
        pool(heroku, process="../../evil").read()
    assert caught.value.code == "platform.not_found"
    assert "/formation/..%2F..%2Fevil" in heroku.requests[0].path


def test_too_many_calls_are_not_repeated(heroku: Heroku) -> None:
    heroku.failures = [
        Reply(429, {"id": "rate_limit", "message": "Slow down"}, {"Retry-After": "7"})
    ]
    with pytest.raises(PlatformError, match="Slow down") as caught:
        pool(heroku).read()
    assert (caught.value.code, caught.value.retry_after) == ("platform.rate_limited", 7)
    assert len(heroku.requests) == 1


def test_a_server_out_of_order_is_asked_again(heroku: Heroku) -> None:
    heroku.failures = [Reply(503), None]
    assert pool(heroku).read().asked == 1


@pytest.mark.parametrize("reply", [Reply(503), None])
def test_a_server_that_stays_out_of_order_is_told(
    heroku: Heroku, reply: Reply | None
) -> None:
    heroku.failures = [reply] * 3
    with pytest.raises(PlatformError, match="Heroku") as caught:
        pool(heroku).read()
    assert caught.value.code == "platform.unavailable"
    assert len(heroku.requests) == 3


def test_an_answer_that_is_no_json_is_an_error_not_a_zero(heroku: Heroku) -> None:
    heroku.failures = [Reply(200, b"<html>maintenance</html>")]
    with pytest.raises(PlatformError, match="did not answer in JSON"):
        pool(heroku).read()


def test_the_token_goes_to_no_other_server(heroku: Heroku) -> None:
    with serving(Heroku()) as other:
        heroku.failures = [Reply(302, None, {"Location": f"{other.url}/apps"})]
        with pytest.raises(PlatformError, match="302"):
            pool(heroku).read()
        assert not other.requests


def test_nothing_listens_there() -> None:
    options = {"platform": "heroku", "app": "shop", "token": TOKEN}
    with pytest.raises(PlatformError, match="does not answer") as caught:
        make_platform({**options, "url": "http://127.0.0.1:9"}).read()
    assert caught.value.code == "platform.unavailable"


def test_busy_dynos_are_safe_only_if_they_drain(heroku: Heroku) -> None:
    assert not pool(heroku).traits.picks_victims
    assert pool(heroku, drains=True).traits.picks_victims
