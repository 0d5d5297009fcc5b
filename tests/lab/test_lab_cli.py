"""The `sterna lab` commands, as a person types them."""

import json
import subprocess
import sys

import pytest

from sterna.lab import Lab

pytestmark = pytest.mark.lab


def lab_command(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "sterna.lab.cli", *words]
    environment = {"STERNA_LAB_DIR": str(lab.state_dir), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_status_and_guests_as_json(bare_lab: Lab) -> None:
    status = json.loads(lab_command(bare_lab, "status", "--json").stdout)
    assert [host["host"] for host in status["hosts"]] == ["host1", "host2"]
    assert all(host["agent_pid"] is None for host in status["hosts"])
    assert lab_command(bare_lab, "vm", "create", "typed", "--host", "host2").returncode == 0
    listed = json.loads(lab_command(bare_lab, "vm", "list", "--json").stdout)
    assert [vm["hosts"] for vm in listed if vm["name"] == "typed"] == [["host2"]]
    assert lab_command(bare_lab, "vm", "remove", "typed").returncode == 0


def test_exec_passes_output_and_exit_code_on(bare_lab: Lab) -> None:
    done = lab_command(bare_lab, "exec", "host2", "--", "sh", "-c", "hostname; exit 7")
    assert (done.stdout, done.returncode) == ("host2\n", 7)


def test_up_over_a_live_lab_says_so(bare_lab: Lab) -> None:
    done = lab_command(bare_lab, "up", "--no-agents")
    assert done.returncode == 0
    assert "up already" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("exec", "host9", "--", "true"), "no host 'host9' in the lab; there are host1, host2"),
        (("vm", "create", "x", "--disk", "floppy"), "unknown kind of disk"),
        (("vm", "remove", "nobody"), "no guest 'nobody'"),
        (("status", "--state-dir", "/nonexistent"), "no lab is up in /nonexistent"),
    ],
)
def test_mistakes_are_named(bare_lab: Lab, words: tuple[str, ...], message: str) -> None:
    done = lab_command(bare_lab, *words)
    assert done.returncode == 1
    assert message in done.stderr


def test_not_root_is_told_so(bare_lab: Lab) -> None:
    argv = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "sterna.lab.cli", "up"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, cwd="/tmp")
    assert done.returncode == 1
    assert "as root" in done.stderr
