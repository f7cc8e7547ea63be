"""Formulas of queueing theory, each with its source.

Loads are in Erlangs: arrivals a second times mean service time in seconds.
"""

from __future__ import annotations

import math

from .observation import ServiceTime

_SQRT_2 = math.sqrt(2)


def rule_of_thumb(jobs: float, service_time: float, desired: float) -> float:
    """Return the servers that finish *jobs* in the *desired* time.

    The Queuing Rule of Thumb: K. Teknomo, "Queuing Rule of Thumb based on M/M/s
    Queuing Theory with Applications in Construction Management", Civil Engineering
    Dimension 14(3), 2012, 139-146. Not rounded.

    :param jobs: The number of jobs that wait.
    :param service_time: Seconds that one takes on average.
    :param desired: Seconds in which all are to be done.
    """
    return jobs * service_time / desired


def erlang_b(servers: int, load: float) -> float:
    """Return the share of arrivals that are lost if none can wait."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """Return the share of arrivals that have to wait; 1 if the queue only grows."""
    if load >= servers:
        return 1.0
    blocked = erlang_b(servers, load)
    return servers * blocked / (servers - load * (1 - blocked))


def steady_servers(
    load: float, service_time: ServiceTime, wait: float, late: float
) -> int:
    """Return the fewest servers with which jobs seldom wait too long.

    The tail of the waiting time of M/M/s, stretched for other distributions of the
    service time by half the sum of the squared coefficients of variation of arrivals
    (1: they are random) and service (Allen and Cunneen).

    :param load: The load in Erlangs.
    :param service_time: The service time of one job.
    :param wait: Seconds that a job may wait.
    :param late: The share of jobs that may wait longer, above 0.
    """
    if load <= 0:
        return 0
    mean = service_time.mean
    stretch = (1 + service_time.variance / mean**2) / 2
    servers = math.floor(load) + 1
    while True:
        decay = math.exp(-(servers - load) * wait / (mean * stretch))
        if erlang_c(servers, load) * decay <= late:
            return servers
        servers += 1


def residual(service_time: ServiceTime, age: float) -> float:
    """Return how many more seconds a job of this *age* is expected to take.

    The service time is taken to be lognormal. If it varies much, a job that has been
    running for long is expected to go on for longer than a new one.
    """
    mean, variance = service_time.mean, service_time.variance
    if variance <= 0 or age <= 0 or mean <= 0:
        return max(mean - age, 0.0)
    spread = math.sqrt(math.log(1 + variance / mean**2))
    middle = math.log(mean) - spread**2 / 2
    distance = (math.log(age) - middle) / spread
    left = _normal_tail(distance)
    if left < 1e-12:  # older than all others: nothing is known but that it runs
        return mean
    return max(mean * _normal_tail(distance - spread) / left - age, 0.0)


def _normal_tail(x: float) -> float:
    return math.erfc(x / _SQRT_2) / 2


def samples_needed(variation: float, accuracy: float) -> int:
    """Return how many samples give a mean within *accuracy* in 95 of 100 cases.

    :param variation: Standard deviation divided by the mean.
    :param accuracy: The relative error that is allowed, for example 0.1.
    """
    return math.ceil((1.96 * variation / accuracy) ** 2)
