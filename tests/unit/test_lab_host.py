"""Which process of a lab's host is the agent."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from sterna.lab.host import LabHost
from sterna.lab.namespaces import Namespaces, parent_of

ARGV = ["python", "-m", "sterna", "agent"]


def test_a_child_that_the_agent_has_just_forked_is_not_taken_for_it() -> None:
    with subprocess.Popen(["sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert parent_of(child.pid) == os.getpid()
        for listed in ([child.pid, os.getpid()], [os.getpid(), child.pid]):
            inside = SimpleNamespace(processes=lambda pids=listed: [(1, ["init"]), *((p, ARGV) for p in pids)])
            host = LabHost("a", 1, "192.0.2.1", Path("nowhere"), cast(Namespaces, inside))
            assert host.agent_pid() == os.getpid()
        child.communicate()
    assert parent_of(child.pid) is None
