"""Only `make test-browser` collects these tests: a browser is large, and `make test` shall not need one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sterna.domain.access import UserRole
from tests.browser.serving import Served, serving

collect_ignore_glob = [] if os.environ.get("STERNA_WITH_BROWSER") else ["test_*.py"]

if os.environ.get("STERNA_WITH_BROWSER"):
    from tests.browser.chromium import Chromium, started

    @pytest.fixture(scope="session")
    def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
        """What all tests look at. Those that change something have VMs of their own there."""
        with serving(Path(tmp_path_factory.mktemp("fleet"))) as found:
            yield found

    @pytest.fixture(scope="session")
    def chromium() -> Iterator[Chromium]:
        """Debian's, without a screen."""
        with started() as found:
            yield found

    @pytest.fixture(scope="session")
    def admin(chromium: Chromium, fleet: Served) -> list[dict[str, object]]:
        """The cookies of one who has signed in."""
        return chromium.cookies(fleet.address, UserRole.ADMIN)
