"""The time until a message that could not be processed is received again."""

from __future__ import annotations

#: The longest delay of a message that is sent or released, in seconds.
MAX_DELAY = 900.0

#: Seconds before the second receive. Each later pause is twice as long: a message is
#: received ten times at most, and its obstacle may take an hour to mend.
FIRST_PAUSE = 5.0


def pause_before(receive_count: int) -> float:
    """Return the seconds until a message is received again.

    :param receive_count: The number of times it was received so far.
    """
    return min(FIRST_PAUSE * 2.0 ** min(receive_count - 1, 16), MAX_DELAY)
