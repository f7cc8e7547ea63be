"""The site that most tests of the routes use."""

from __future__ import annotations

import pytest

from .site import KEY
from .site import make_site
from .site import SECRET
from .site import Site


@pytest.fixture
def site() -> Site:
    return make_site(EVENT_KEYS=KEY, SIGNING_SECRETS=SECRET)
