"""Only `make test-openstack` collects these tests: the servers are large, and `make test` shall not need them."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
collect_ignore_glob = [] if os.environ.get("STERNA_WITH_OPENSTACK") else ["test_*.py"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of each file, all tests with one firewall driver, then all with the other: its servers start but twice.

    pytest itself would sort by the other parameters as well.
    """
    files = list(dict.fromkeys(item.path for item in items))

    def place(item: pytest.Item) -> tuple[int, str]:
        parameters = item.callspec.params if item.path.parent == HERE and hasattr(item, "callspec") else {}
        return files.index(item.path), str(parameters.get("scene", ""))

    items.sort(key=place)
