"""The servers end with whoever started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from sterna.lab import namespaces
from tests.openstack.servers import CHECKOUT

FOLDER = CHECKOUT / ".lab-test/openstack-killed"
OWNER = f"""
import signal, sys
from pathlib import Path
from tests.openstack.servers import Servers, alone
with alone(Path({str(FOLDER)!r})) as outer:
    servers = Servers(outer, Path({str(FOLDER)!r}) / "servers")
    servers.start("sleeper", ["setsid", "sleep", "1000"])
    print(outer.init.pid, flush=True)
    signal.pause()
"""


def test_nothing_outlives_a_test_run_that_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert int(owner.stdout.readline()) > 0
    (init,) = namespaces.find(["openstack", str(FOLDER)])
    inside = Path(f"/proc/{init.pid}/ns/pid").readlink()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + namespaces.DIE_SECONDS
    while init.alive:  # it is gone only once all that was in its namespaces is
        assert time.monotonic() < deadline
        time.sleep(0.02)
    alive = [p for p in Path("/proc").glob("[0-9]*/ns/pid") if _link(p) == inside]
    assert alive == []


def _link(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:
        return None
