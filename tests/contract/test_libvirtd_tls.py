"""A real libvirtd with the files that `sterna agent join --libvirt` writes: whom it lets in, and for how long.

It runs in namespaces of its own, with the driver `test`: nothing of this machine is touched.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sterna.adapters.identity.authority import Authority
from sterna.domain.trust.identities import Identity, Kind
from tests.unit.adapters.identities import HOST1, HOST2, controller, join

HOST3 = Identity(kind=Kind.AGENT, name="host3")
ROOT = Path(__file__).parents[2]


def test_hosts_alone_are_let_in_and_a_removed_one_no_more(tmp_path: Path) -> None:
    for program, package in (("libvirtd", "libvirt-daemon"), ("virt-admin", "libvirt-clients")):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is not installed (Debian: apt-get install {package})")
    authority = Authority.make(tmp_path / "ca", ["sterna"])
    for who in (HOST1, HOST2, HOST3):
        join(authority, who, tmp_path / who.name)
    controller(authority, tmp_path / "c1", "127.0.0.1")
    alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*alone, sys.executable, "-m", "tests.contract.inside_libvirtd", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "host2 is let in": True,
        "a controller is let in": False,
        "connected": ["host2", "host3"],
        "still connected": ["host3"],
        "host2 is let in again": False,
        "host3 is let in": True,
        "host2 is let in after a restart": False,
    }
