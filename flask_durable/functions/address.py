"""The address that ``step.create_url`` makes, and what its page says."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime

from ..common.ids import derived_id


@dataclass(frozen=True)
class Address:
    """An address of the app that takes one answer for a run.

    It is a secret: everyone who knows ``href`` can answer. ``repr`` does not show it.

    :param href: The whole URL.
    :param expires: The moment from which on it takes no answer.
    :param run_id: The run that gets the answer.
    """

    href: str = field(repr=False)
    expires: datetime
    run_id: str

    @property
    def signal(self) -> str:
        """The name of the signal that the answer becomes. For our own use."""
        return signal_of(self.href.rpartition("/")[2])


class Page(t.NamedTuple):
    """The plain texts on the page of an address.

    :param title: The heading.
    :param text: The paragraph under it; may be empty.
    :param button: The label of the button.
    """

    title: str
    text: str
    button: str


def signal_of(token: str) -> str:
    """Return name and id of the signal that the answer to an address becomes.

    ``durable.signal`` can give none of that name.

    :param token: The last part of the address.
    """
    return f"@{derived_id('address', token)}"
