"""Moves a Python process's time of day by the number in a file, such as ``+3600``.

Python imports this at its start where the folder is in ``PYTHONPATH``. Pauses and
timeouts stay as they are: they go by the monotonic clock.
"""

import datetime
import os
import time

_time, _time_ns = time.time, time.time_ns
_datetime = datetime.datetime


def _shift() -> float:
    with open(os.environ["TEST_CLOCK"]) as place:
        return float(place.read())


class _Instances(type):
    # Objects that C code makes are of the real class.
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _datetime)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, _datetime)


class _Moved(_datetime, metaclass=_Instances):
    @classmethod
    def now(cls, tz=None):  # type: ignore[no-untyped-def]
        return _datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):  # type: ignore[no-untyped-def]
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)


time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + int(_shift() * 10**9)
datetime.datetime = _Moved  # type: ignore[misc]
