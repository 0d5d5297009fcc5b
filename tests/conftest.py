"""For every test: the databases a controller can have; hypothesis looks for wrong answers, not for slow ones (speed
is `make bench`'s affair); tracebacks in logs are plain: one with every frame's variables may take a minute. What a
test sets of the log is put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from tests.postgres import Postgres

pytest.register_assert_rewrite("tests.saga", "tests.unit")  # their helpers' failed assertions show values as well
settings.register_profile("sterna", deadline=None)
settings.load_profile("sterna")
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for this process's tests."""
    server = Postgres()
    server.start()
    yield server
    server.end()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/controller.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.schema()
