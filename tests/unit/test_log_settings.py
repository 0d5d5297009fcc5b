"""What one test does to the log's settings, the next one does not see."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

TESTS = Path(__file__).parents[1]


def test_no_test_asks_for_structlogs_own_settings() -> None:
    """Their tracebacks show the variables of each frame: where an error is raised often, they take minutes."""
    files = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    assert len(files) > 100
    assert [str(path) for path in files if "reset_defaults" in path.read_text()] == []


@pytest.mark.parametrize("_time", [1, 2])
def test_the_settings_are_those_of_all_tests_whatever_the_test_before_has_set(_time: int) -> None:
    renderer = structlog.get_config()["processors"][-1]
    assert isinstance(renderer, structlog.dev.ConsoleRenderer)
    assert renderer.exception_formatter is structlog.dev.plain_traceback
    structlog.configure(processors=[structlog.dev.ConsoleRenderer()])
