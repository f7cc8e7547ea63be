"""Asks the application's code that routing needs: ``where=`` and schema validators.

Such code may hang: a lookup without a timeout, a loop without an end. The router's
thread must not hang with it, since all other events wait behind. So the questions about
one batch of events are asked together on another thread::

    asked ──► answered
      │
      ├─(5 s)──► interrupted ──► late
      └─(6 s)──► left alone with its thread, since no interrupt reaches it ──► late

A question that was late once rests: it is not asked for a minute, nor while the call
that was left alone goes on. So a function that hangs costs the router some seconds a
minute, and the process one thread, however many of its events come. An event whose
question rests is not to blame: it goes back to the queue.

Only code that may hang is asked here. The data of most schemas is checked by compiled
code alone, in the thread that has it.
"""

from __future__ import annotations

import contextvars
import math
import queue
import threading
import time
import typing as t
from dataclasses import dataclass

from ..common.interruption import Body
from ..common.safe_points import call

#: Seconds that one question may take, and then until it is left alone.
ANSWER_SECONDS = 5.0
ANSWER_GRACE_SECONDS = 1.0

#: Seconds that a question rests after it was late.
QUESTION_REST_SECONDS = 60.0


@dataclass(frozen=True)
class Question:
    """A question to the application's code about one event.

    :param key: The name of the question, the same for all events.
    :param ask: A callable that asks it. Only the code that it calls by
        :func:`~.safe_points.call` may be interrupted.
    """

    key: str
    ask: t.Callable[[], t.Any]


@dataclass(frozen=True)
class Answer:
    """The answer to a question, or the reason why there is none.

    :param value: The value that the code returned.
    :param error: The error that the code raised.
    :param late: True if it was asked, and there was no answer in time.
    :param rests: True if it was not asked, since it was late a moment ago.
    """

    value: t.Any = None
    error: BaseException | None = None
    late: bool = False
    rests: bool = False


class Asker:
    """Asks questions on threads of its own. Several threads may use it at once."""

    def __init__(self) -> None:
        self._idle: list[queue.SimpleQueue[_Round]] = []
        #: The questions that rest, and until when.
        self._resting: dict[str, float] = {}

    def ask(self, questions: t.Sequence[Question]) -> list[Answer]:
        """Return the answers to *questions*, in their order."""
        answers: list[Answer] = []
        while len(answers) < len(questions):
            answers += self._ask(questions[len(answers) :])
        return answers

    def _ask(self, questions: t.Sequence[Question]) -> list[Answer]:
        """Return the answers up to the first question that was left alone."""
        round = _Round(questions, self)
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = _start_thread()
        inbox.put(round)
        while not round.done.wait(round.time_left()):
            if (answers := round.leave_alone()) is not None:
                self._resting[questions[len(answers)].key] = math.inf
                round.left_alone.set()
                return [*answers, Answer(late=True)]
        self._idle.append(inbox)
        return round.answers

    def answer(self, question: Question) -> Answer:
        """Ask *question* in the calling thread, which is one of this object's."""
        if time.monotonic() < self._resting.get(question.key, 0.0):
            return Answer(rests=True)
        body = Body(ANSWER_SECONDS)
        try:
            with body:
                # In a context of its own: a context variable that the code sets, such
                # as a tenant, is not there for the next event.
                context = contextvars.copy_context()
                value = context.run(call, question.ask, (), {})
        except BaseException as error:  # SystemExit would end the thread
            if body.interrupted is None:
                return Answer(error=error)
            self._resting[question.key] = time.monotonic() + QUESTION_REST_SECONDS
            return Answer(late=True)
        self._resting.pop(question.key, None)
        return Answer(value)

    def came_back(self, question: Question) -> None:
        """Note that the call for *question*, which was left alone, has ended."""
        self._resting[question.key] = time.monotonic() + QUESTION_REST_SECONDS


class _Round:
    """A list of questions that one thread asks, until it is done or left alone."""

    def __init__(self, questions: t.Sequence[Question], asker: Asker) -> None:
        self.answers: list[Answer] = []
        self.done = threading.Event()
        #: Set once a question was left alone and rests.
        self.left_alone = threading.Event()
        self._questions = questions
        self._asker = asker
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._is_left = False

    def run(self) -> bool:
        """Ask all questions; return whether the thread is to serve further rounds."""
        for question in self._questions:
            self._began = time.monotonic()
            answer = self._asker.answer(question)
            with self._lock:
                # Closes the race with leave_alone(): the answer counts or is late.
                if not self._is_left:
                    self.answers.append(answer)
                    self._began = time.monotonic()
                    continue
            self.left_alone.wait()
            self._asker.came_back(question)
            return False
        self.done.set()
        return True

    def time_left(self) -> float:
        """Return the seconds until the present question may be left alone."""
        return max(
            self._began + ANSWER_SECONDS + ANSWER_GRACE_SECONDS - time.monotonic(), 0.01
        )

    def leave_alone(self) -> list[Answer] | None:
        """Give up the present question if its time is over.

        :returns: The answers to those before it; ``None`` if it still has time.
        """
        with self._lock:
            due = self._began + ANSWER_SECONDS + ANSWER_GRACE_SECONDS
            if len(self.answers) == len(self._questions) or time.monotonic() < due:
                return None
            self._is_left = True
            return self.answers


def _start_thread() -> queue.SimpleQueue[_Round]:
    inbox: queue.SimpleQueue[_Round] = queue.SimpleQueue()
    thread = threading.Thread(
        target=_serve, args=(inbox,), name="durable-asker", daemon=True
    )
    thread.start()
    return inbox


def _serve(inbox: queue.SimpleQueue[_Round]) -> None:
    while inbox.get().run():
        pass
