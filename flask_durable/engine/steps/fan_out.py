"""``step.parallel``, ``step.map``, ``step.first``: branches that any worker executes.

==========  ======================================================================
memo found  effect
==========  ======================================================================
none        the branches are made, and this run is suspended until they have ended
waiting     the same: branches that exist are kept
done        the results of the branches are returned, in the order of the places
failed      ``BranchError``: more branches failed than may
==========  ======================================================================

See ``store/branches.py`` for the writes, and ``engine/branches.py`` for the way of a
branch to its callable, which is called here. A map over a durable function has
children in the place of branches. The memo has the places; the outcomes are
read from the group, as they may be large.
"""

from __future__ import annotations

import functools
import json
import typing as t
from dataclasses import dataclass

from ...common.safe_logging import get_logger
from ...common.safe_points import call
from ...errors import BranchError
from ...errors import Failure
from ...errors import ReplayMismatch
from ...errors import StepUsageError
from ...functions.callables import positions_of
from ...functions.callables import takes
from ...functions.checks import MAX_STEP_NAME
from ...functions.function import Function
from ...functions.options import NO_OPTIONS
from ...functions.options import StepOptions
from ...functions.step_function import StepFunction
from ...serialization import Codec
from ...serialization import codec_for
from ...serialization import item_codec_for
from ...serialization import PLAIN
from ...serialization import UnreadableValue
from ...serialization import UnserializableValue
from ...store.branches import Children
from ...store.branches import MAX_BRANCHES
from ...store.branches import NewBranch
from ...store.branches import Outcomes
from ...store.branches import read_outcomes
from ...store.memo import Memo
from ..attempt import Attempt
from ..branches import Level
from ..children import callee_of
from ..children import id_of
from ..children import result_codec
from ..control import BranchEnded
from ..control import Signal
from ..replaying import check_function
from ..sketch import sketch_of
from ..waits import tell_end_of_branches
from .branches import begin
from .branches import branch_id
from .branches import branches_of
from .branches import child_id
from .branches import children_of
from .branches import KIND
from .branches import stored_branches
from .branches import Terms
from .outcome import check_size
from .run import Execution
from .run import KIND as RUN

if t.TYPE_CHECKING:
    from ...functions.step import Step

Callable = t.Callable[..., t.Any]
RunIds = t.Callable[[str], str]

logger = get_logger(__name__)


def parallel(
    attempt: Attempt,
    step: Step,
    name: str,
    branches: t.Mapping[str, Callable],
    *,
    limit: int | None,
    tolerate: int,
    return_exceptions: bool,
) -> dict[str, t.Any]:
    """Carry out :meth:`flask_durable.Step.parallel`."""
    key = attempt.enter(name)
    terms = _terms(name, len(branches), limit, tolerate, return_exceptions)
    codecs = _codecs(name, branches)
    sketch = sketch_of(None, ["parallel", *branches])
    _turn_off(attempt, key, functools.partial(_call_named, attempt, step, branches))
    memo = attempt.recall(key, KIND, sketch)
    if memo is None or not memo.final:
        _check_branches(name, branches)
        made = branches_of(attempt, key, [(place, "") for place in branches])
        memo = begin(attempt, key, sketch, made, list(branches), terms)
    ids = functools.partial(branch_id, attempt, key)
    return _results(attempt, key, memo, codecs, ids, keep_errors=return_exceptions)


def first(
    attempt: Attempt, step: Step, name: str, branches: t.Mapping[str, Callable]
) -> tuple[str, t.Any]:
    """Carry out :meth:`flask_durable.Step.first`."""
    key = attempt.enter(name)
    if not branches:
        raise StepUsageError(
            f"Step {name!r} has no branch that could end first.",
            hint="Give at least one: step.first(name, yes=lambda step: ...).",
        )
    codecs = _codecs(name, branches)
    sketch = sketch_of(None, ["first", *branches])
    _turn_off(attempt, key, functools.partial(_call_named, attempt, step, branches))
    memo = attempt.recall(key, KIND, sketch)
    if memo is None or not memo.final:
        _check_branches(name, branches)
        terms = Terms(until=1, limit=len(branches), tolerate=0)
        made = branches_of(attempt, key, [(place, "") for place in branches])
        memo = begin(attempt, key, sketch, made, list(branches), terms)
    ids = functools.partial(branch_id, attempt, key)
    outcomes = _outcomes(attempt, key, memo, ids)
    place = outcomes.decided
    _, text = outcomes.by_place[place]
    return place, _load(attempt, key, place, text, codecs.get(place, PLAIN))


def map(
    attempt: Attempt,
    step: Step,
    options: StepOptions,
    name: str,
    fn: Callable | Function[t.Any, t.Any] | str,
    items: t.Iterable[t.Any],
    *,
    key_of: Callable | None,
    limit: int | None,
    tolerate: int,
    return_exceptions: bool,
) -> list[t.Any]:
    """Carry out :meth:`flask_durable.Step.map`."""
    key = attempt.enter(name)
    if isinstance(fn, (Function, str)):
        options.refuse_for("map of a durable function")
        mapped = _of_function(attempt, key, fn)
    else:
        check_function(name, fn)
        if options is not NO_OPTIONS and positions_of(fn)[1] > 1:
            options.refuse_for("map whose branches have steps of their own")
        mapped = _of_callable(attempt, step, options, key, fn)
    memo = attempt.recall(key, KIND, mapped.sketch)
    if memo is None or not memo.final:
        # The list of an owner that died between two pages: ours may be another one.
        found = stored_branches(attempt, key, memo)
        given = list(items) if found is None else found.branches
        terms = _terms(name, len(given), limit, tolerate, return_exceptions)
        if found is None:
            places = _places_of(name, given, key_of)
            stored = len(given) if key_of is None else places
            made, children = mapped.make(places, given)
        else:
            stored, made = json.loads(found.body), found.branches
            _, children = mapped.make([], [])
        memo = begin(
            attempt,
            key,
            mapped.sketch,
            made,
            stored,
            terms,
            children,
            store_first=found is None,
        )
    codecs = dict.fromkeys(_places_in(memo), mapped.codec)
    ids = mapped.run_id
    results = _results(attempt, key, memo, codecs, ids, keep_errors=return_exceptions)
    return list(results.values())


def _check_branches(name: str, branches: t.Mapping[str, Callable]) -> None:
    for place, fn in branches.items():
        if not takes(fn, 1):
            raise StepUsageError(
                f"Branch {place!r} of step {name!r} cannot be called with step tools "
                "alone.",
                hint=f"Write {place}=lambda step: step.run(...).",
            )


@dataclass(frozen=True)
class _Mapped:
    """The thing that a map has for each item: a branch, or a run of a function.

    :param codec: The codec of its results.
    :param make: Makes the branches of items, by their places.
    :param run_id: Returns the id of the run of a place.
    """

    codec: Codec
    sketch: bytes
    make: t.Callable[
        [t.Sequence[str], t.Sequence[t.Any]], tuple[list[NewBranch], Children | None]
    ]
    run_id: RunIds


def _of_callable(
    attempt: Attempt, step: Step, options: StepOptions, key: str, fn: Callable
) -> _Mapped:
    codec, item_codec = codec_for(fn), item_codec_for(fn)

    def make(
        places: t.Sequence[str], items: t.Sequence[t.Any]
    ) -> tuple[list[NewBranch], None]:
        if not takes(fn, 2 if positions_of(fn)[1] > 1 else 1):
            raise StepUsageError(
                f"The callable of step {key!r} can be called neither with an item "
                "alone nor with an item and step tools.",
                hint="Give a function of (item) for one step each, or of (item, step).",
            )
        texts = _items_of(attempt, key, places, items, item_codec)
        return branches_of(attempt, key, list(zip(places, texts, strict=True))), None

    call_item = functools.partial(
        _call_with_item, attempt, step, options, fn, item_codec
    )
    _turn_off(attempt, key, call_item)
    ids = functools.partial(branch_id, attempt, key)
    return _Mapped(codec, sketch_of(fn, ["map"]), make, ids)


def _of_function(
    attempt: Attempt, key: str, fn: Function[t.Any, t.Any] | str
) -> _Mapped:
    # Before a child is created: a useless annotation must not cost a run.
    codec, id = result_codec(attempt.services, fn), id_of(fn)

    def make(
        places: t.Sequence[str], items: t.Sequence[t.Any]
    ) -> tuple[list[NewBranch], Children]:
        # Only now: results are found although the function is gone since.
        callee = callee_of(attempt.services, id)
        return children_of(attempt, key, callee, places, items)

    ids = functools.partial(child_id, attempt, key)
    return _Mapped(codec, sketch_of(None, ["map", id]), make, ids)


# -- A branch ---------------------------------------------------------------------


def _turn_off(attempt: Attempt, key: str, execute: t.Callable[[Level], str]) -> None:
    """Execute the branch, in an attempt of a branch whose step this is.

    :param execute: Calls the branch, and returns its result as JSON text.
    :raises Signal: The end of the branch; the body above is not to go on.
    """
    if not attempt.levels or attempt.levels[0].step != key:
        return
    level = attempt.descend()
    try:
        outcome = execute(level)
        attempt.check()
        check_size(outcome, attempt.services.max_value)
    except Signal:
        raise
    except BaseException as error:
        raise attempt.stop(BranchEnded(error=error)) from None
    raise attempt.stop(BranchEnded(outcome))


def _call_named(
    attempt: Attempt, step: Step, branches: t.Mapping[str, Callable], level: Level
) -> str:
    fn = branches.get(level.place)
    if fn is None:
        attempt.pause(
            ReplayMismatch(
                f"Step {level.step!r} has no branch {level.place!r} now.",
                hint="Deploy code that has it; then resume.",
            ),
            level.step,
        )
    return codec_for(fn).dump(call(fn, (step,), {}))


def _call_with_item(
    attempt: Attempt,
    step: Step,
    options: StepOptions,
    fn: Callable,
    item_codec: Codec,
    level: Level,
) -> str:
    text = attempt.payloads.open(level.item, level.step)
    try:
        item = item_codec.load(text)
    except UnreadableValue as error:
        attempt.pause(
            ReplayMismatch(
                f"The stored item of {level.name} does not fit its type now.",
                hint="Deploy code that can read it; then resume.",
            ),
            level.step,
            error=error,
        )
    codec = codec_for(fn)
    _, needed = positions_of(fn)
    if needed > 1:  # step tools beside its item
        return codec.dump(call(fn, (item, step), {}))
    if isinstance(fn, StepFunction):
        options = fn.options.merged(options)
    memo = attempt.recall(level.name, RUN)
    sketch = sketch_of(fn)
    execution = Execution(attempt, options, level.name, RUN, codec, sketch)
    return codec.dump(execution.resolve(memo, fn, (item,), {}))


# -- The step ---------------------------------------------------------------------


def _terms(
    name: str, total: int, limit: int | None, tolerate: int, return_exceptions: bool
) -> Terms:
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise StepUsageError(
            f"Step {name!r} cannot have {limit!r} branches under way.",
            hint="Give limit= a number from 1, or leave it out.",
        )
    if not isinstance(tolerate, int) or tolerate < 0:
        raise StepUsageError(
            f"Step {name!r} cannot tolerate {tolerate!r} failures.",
            hint="Give tolerate= a number from 0.",
        )
    if total > MAX_BRANCHES:
        raise StepUsageError(
            f"Step {name!r} has {total} branches, and {MAX_BRANCHES} are the most.",
            hint="Give each branch several items, such as slices of the list, or use "
            "several steps one after the other.",
        )
    if return_exceptions and not tolerate:
        tolerate = total
    return Terms(until=total, limit=limit or max(total, 1), tolerate=tolerate)


def _codecs(name: str, branches: t.Mapping[str, Callable]) -> dict[str, Codec]:
    # Before a branch is made: a useless annotation must not cost a run.
    for fn in branches.values():
        check_function(name, fn)
    return {place: codec_for(fn) for place, fn in branches.items()}


def _places_of(
    name: str, items: t.Sequence[t.Any], key_of: Callable | None
) -> list[str]:
    if key_of is None:
        return [str(number) for number in range(len(items))]
    places: dict[str, t.Any] = {}
    for item in items:
        place = key_of(item)
        text = str(place) if isinstance(place, (str, int)) else ""
        if not text or len(text) > MAX_STEP_NAME or not text.isprintable():
            raise StepUsageError(
                f"{place!r} is not the key of an item of step {name!r}.",
                hint=f"Let key= return a number, or text of 1 to {MAX_STEP_NAME} "
                "printable characters.",
            )
        if text in places:
            raise StepUsageError(
                f"Two items of step {name!r} have the key {text!r}.",
                hint="Let key= return something that only one item has, such as an id.",
            )
        places[text] = item
    return list(places)


def _items_of(
    attempt: Attempt,
    name: str,
    places: t.Sequence[str],
    items: t.Sequence[t.Any],
    codec: Codec,
) -> list[str]:
    found = []
    for place, item in zip(places, items, strict=True):
        try:
            text = codec.dump(item)
            check_size(text, attempt.services.max_value)
        except UnserializableValue as error:
            raise StepUsageError(
                f"Item {place!r} of step {name!r} cannot be stored: {error}",
                hint="Give items that JSON has, such as ids, or annotate the first "
                "parameter of the function with their type.",
            ) from error
        found.append(attempt.payloads.seal(text))
    return found


def _places_in(memo: Memo) -> list[str]:
    if memo.status == "failed":
        return []
    stored = json.loads(memo.body)
    if isinstance(stored, int):
        return [str(number) for number in range(stored)]
    return t.cast("list[str]", stored)


def _outcomes(attempt: Attempt, key: str, memo: Memo, ids: RunIds) -> Outcomes:
    """Return the outcomes of the branches.

    :raises BranchError: The step has failed.
    """
    store, owner = attempt.services.store, attempt.book_id
    outcomes = attempt.services.retry_until_answered(
        lambda: read_outcomes(store, owner, key)
    )
    if not attempt.levels:
        completed = [done for done, _ in outcomes.by_place.values()].count(True)
        failed = len(outcomes.by_place) - completed
        tell_end_of_branches(attempt, key, memo, completed, failed)
    if memo.status == "failed":
        raise _error(attempt, key, outcomes.decided, memo.body, ids)
    return outcomes


def _results(
    attempt: Attempt,
    key: str,
    memo: Memo,
    codecs: t.Mapping[str, Codec],
    ids: RunIds,
    *,
    keep_errors: bool,
) -> dict[str, t.Any]:
    """Return the results by place; those of failed branches are errors, or left out.

    :raises BranchError: The step has failed.
    """
    places = _places_in(memo)
    if not places and memo.status == "done":
        return {}
    outcomes = _outcomes(attempt, key, memo, ids)
    results: dict[str, t.Any] = {}
    for place in places:
        done, text = outcomes.by_place[place]
        if done:
            codec = codecs.get(place, PLAIN)
            results[place] = _load(attempt, key, place, text, codec)
        elif keep_errors:
            results[place] = _error(attempt, key, place, text, ids)
    return results


def _load(attempt: Attempt, key: str, place: str, text: str, codec: Codec) -> t.Any:
    try:
        return codec.load(attempt.payloads.open(text, key))
    except UnreadableValue as error:
        attempt.pause(
            ReplayMismatch(
                f"The stored result of {key}[{place}] does not fit its type now.",
                hint="Give the changed step another name, or deploy code that can "
                "read it; then resume.",
            ),
            key,
            error=error,
        )


def _error(
    attempt: Attempt, key: str, place: str, text: str, ids: RunIds
) -> BranchError:
    failure = Failure.from_json(attempt.payloads.open(text, key))
    return BranchError(key, failure, branch=place, run_id=ids(place))
