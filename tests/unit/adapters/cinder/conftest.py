from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripted_cloud import ScriptedCloud
from tests.unit.adapters.cinder.scripted_cinder import ScriptedCinder


@pytest.fixture
def qemu_img(tmp_path: Path) -> str:
    """A qemu-img to which every volume opens."""
    script = tmp_path / "qemu-img"
    script.write_text(f"""#!/bin/sh\necho '{{"virtual-size": {1 << 30}}}'\n""")
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def cinder() -> ScriptedCinder:
    return ScriptedCinder()


@pytest.fixture
def cloud(cinder: ScriptedCinder) -> Iterator[ScriptedCloud]:
    with ScriptedCloud(cinder) as up:
        yield up
