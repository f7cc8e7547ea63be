"""Errors of the state server: which ones pass by themselves."""

from __future__ import annotations

import redis

from ..common.safe_logging import SafeLogger

#: Errors after which the same call is made again until it is answered: it may have been
#: carried out, and repeating it is how to find out.
TRANSIENT = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError)

#: Answers of a server that takes no writes now: its memory or disk is full, too few
#: replicas follow, a script runs too long, a failover is under way.
_NOT_NOW = {"BUSY", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM"}

#: Those that redis-py has classes for: it cuts the word off their text.
_CUT_OFF: dict[type[redis.ResponseError], str] = {
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.OutOfMemoryError: "OOM",
}


def log_failure(logger: SafeLogger, what: str, error: BaseException) -> None:
    """Log that a periodic task failed to do *what*; a traceback only if unexpected."""
    if is_transient(error):
        logger.warning("Could not %s: %s", what, error, extra={"action": "task_failed"})
    else:
        logger.error(
            "Could not %s.", what, exc_info=error, extra={"action": "task_failed"}
        )


def is_full(error: object) -> bool:
    """Return whether the server refused for want of memory."""
    return isinstance(error, redis.ResponseError) and _word(error) == "OOM"


def is_transient(error: object) -> bool:
    """Return whether *error* passes by itself, so that the call is made again."""
    if not isinstance(error, redis.ResponseError):
        return isinstance(error, TRANSIENT)
    return _word(error) in _NOT_NOW or isinstance(error, TRANSIENT)


def _word(error: redis.ResponseError) -> str:
    for kind, word in _CUT_OFF.items():
        if isinstance(error, kind):
            return word
    # A pipeline puts the command in front of it.
    return str(error).rpartition(" caused error: ")[2].partition(" ")[0]
