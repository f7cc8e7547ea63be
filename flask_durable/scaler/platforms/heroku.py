"""The dynos of one process type of a Heroku app."""

from __future__ import annotations

import typing as t
from urllib.parse import quote

from ...clients.http import HTTPAPI
from ...clients.http import Refusal
from ...clients.http import token_of
from ...errors import PlatformError
from ..decision.observation import Size
from .base import Applied
from .base import Traits

_ABOVE_LIMIT = "cannot_run_above_limit"
_LIMIT = "platform.limit"


class HerokuPlatform:
    """The dynos of one process type.

    Heroku chooses the dynos that go when the quantity shrinks. So none goes while one
    is busy, unless *drains* is set.

    :param app: The app's name or id.
    :param process: The process type's name in the ``Procfile``.
    :param token: An OAuth token of scope ``write``; ``HEROKU_API_KEY`` by default.
    :param drains: True if the 30 seconds that a dyno has to stop are enough for a
        worker to end its steps.
    :param url: The URL of the API.
    """

    def __init__(
        self,
        *,
        app: str,
        process: str = "worker",
        token: str | None = None,
        drains: bool = False,
        url: str = "https://api.heroku.com",
    ) -> None:
        self._name = f"heroku:{app}:{process}"
        self._process = process
        self._dynos = f"/apps/{quote(app, safe='')}/dynos"
        self._formation = f"/apps/{quote(app, safe='')}/formation/{quote(process, '')}"
        secret = token_of("Heroku", token, "HEROKU_API_KEY")
        headers = {
            "Accept": "application/vnd.heroku+json; version=3",
            "Authorization": f"Bearer {secret}",
        }
        self._api = HTTPAPI("Heroku", url, lambda: headers)
        self.traits = Traits(picks_victims=drains)

    def describe(self) -> str:
        """Return the platform in one line."""
        return self._name

    def read(self) -> Size:
        """Return the quantity of the formation, and how many dynos are up.

        :raises PlatformError: Heroku refuses or does not answer.
        """
        asked = self._quantity()
        dynos = self._api.call("GET", self._dynos)
        ours = [dyno for dyno in dynos if dyno["type"] == self._process]
        return Size.of(asked, sum(dyno["state"] == "up" for dyno in ours))

    def resize(self, workers: int, victims: t.Sequence[str] = ()) -> Applied:
        """Set the quantity; the highest one that Heroku gives, if that is less.

        Never more than *workers* are asked for.

        :raises PlatformError: Heroku refuses or does not answer.
        """
        before = self._quantity()
        if workers == before:
            return Applied(before, before)
        try:
            return Applied(before, self._scale(workers))
        except PlatformError as error:
            if error.limit is None:
                raise
            limit = error.limit
        if limit <= before:
            return Applied(before, before, limit)
        after = self._most(before, workers, limit)
        return Applied(before, after, after)

    def _most(self, before: int, workers: int, limit: int) -> int:
        """Find by bisection the most dynos that Heroku gives below *workers*.

        The limit is that of the account or the app. Other processes have a share of it,
        and the size of that share is unknown.
        """
        granted, refused, next_try = before, workers, limit
        while granted + 1 < refused:
            if not granted < next_try < refused:
                next_try = (granted + refused) // 2
            try:
                granted = self._scale(next_try)
            except PlatformError as error:
                if error.code != _LIMIT:
                    raise
                refused = next_try
            # The limit itself fits if no other process has a share.
            if granted == limit:
                break
            next_try = 0
        return granted

    def _quantity(self) -> int:
        return int(self._api.call("GET", self._formation)["quantity"])

    def _scale(self, quantity: int) -> int:
        body = {"quantity": quantity}
        try:
            return int(self._api.call("PATCH", self._formation, body)["quantity"])
        except Refusal as refusal:
            if refusal.answer.get("id") != _ABOVE_LIMIT:
                raise
            limit = refusal.answer.get("limit")
            raise PlatformError(
                refusal.message,
                code=_LIMIT,
                limit=limit if isinstance(limit, int) else None,
                hint="Lower the pool's maximum, or have Heroku raise the limit.",
            ) from refusal
