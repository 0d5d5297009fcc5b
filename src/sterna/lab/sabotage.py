"""Kill, freeze, fill and restart the parts of a lab, for fault tests. Called by tests; a lab on its own never does
this. Links are broken in links.py."""

import os
import select
import signal
from collections.abc import Callable

from sterna.lab.errors import LabError
from sterna.lab.lab import Lab
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import INSTANCES, LAB_ADDRESS

GONE_SECONDS = 10
FILLER = "filler-of-a-fault-test"


def kill_all(inside: Namespaces, is_victim: Callable[[list[str]], bool]) -> int:
    """kill -9 every process of a set of namespaces whose command line `is_victim` picks; how many there were.

    Returns once they are gone. Raises LabError if one is not after 10 s.
    """
    victims = [pid for pid, argv in inside.processes() if is_victim(argv)]
    for pid in victims:
        watched = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            if not select.select([watched], [], [], GONE_SECONDS)[0]:
                raise LabError(f"process {pid} goes on after SIGKILL")
        finally:
            os.close(watched)
    return len(victims)


def _named(name: str) -> Callable[[list[str]], bool]:
    return lambda argv: os.path.basename(argv[0]) == name


def kill_libvirtd(lab: Lab, host: str) -> None:
    """The host's libvirtd dies; its QEMUs live on."""
    _some(kill_all(lab.hosts[host].inside, _named("libvirtd")), f"libvirtd on {host}")


def start_libvirtd(lab: Lab, host: str) -> None:
    """And is started again, as the lab started it."""
    lab.hosts[host].run(["libvirtd", "-d", "--listen"])


def kill_qemu(lab: Lab, host: str, guest: str) -> None:
    """One guest's QEMU dies on one host."""
    ours = f"guest={guest},"
    found = kill_all(lab.hosts[host].inside, lambda argv: any(ours in word for word in argv) and "qemu" in argv[0])
    _some(found, f"QEMU of {guest} on {host}")


def kill_nats(lab: Lab) -> None:
    """The bus dies, with all it held in memory."""
    _some(kill_all(lab.outer, _named("nats-server")), "nats-server")


def start_nats(lab: Lab) -> None:
    """And is started again."""
    argv = ["nats-server", "-a", LAB_ADDRESS, "-p", "4222", "-js", "-sd", str(lab.state_dir / "nats")]
    lab.outer.detach(argv, lab.state_dir / "logs/nats.log")


def kill_controller(lab: Lab) -> None:
    """The controller dies."""
    _some(kill_all(lab.outer, lambda argv: argv[1:4] == ["-m", "sterna", "controller"]), "controller")


def freeze_agent(lab: Lab, host: str) -> None:
    """The agent hangs: it exists, holds its connections, and does nothing. Raises LabError when there is none."""
    pid = lab.agent_pid(host)
    if pid is None:
        raise LabError(f"no agent runs on {host}")
    os.kill(pid, signal.SIGSTOP)


def thaw_agent(lab: Lab, host: str) -> None:
    """And goes on."""
    pid = lab.agent_pid(host)
    if pid is None:
        raise LabError(f"no agent runs on {host}")
    os.kill(pid, signal.SIGCONT)


def give_small_disk(lab: Lab, host: str, size_mib: int) -> None:
    """A file system of its own, in memory, over the host's instances folder. Raises LabError if that fails.

    Disks opened past the page cache (cache=none) need Linux 6.6 or newer on it.
    """
    lab.hosts[host].run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", INSTANCES])


def fill_disk(lab: Lab, host: str) -> None:
    """Write until the small disk is full."""
    done = lab.hosts[host].run(["dd", "if=/dev/zero", f"of={INSTANCES}/{FILLER}", "bs=64k"], check=False)
    if "No space left" not in done.stderr:
        raise LabError(f"the disk of {host} is not full: {done.stderr.strip()}")


def free_disk(lab: Lab, host: str) -> None:
    """Remove what `fill_disk` wrote."""
    lab.hosts[host].run(["rm", "-f", f"{INSTANCES}/{FILLER}"])


def take_small_disk(lab: Lab, host: str) -> None:
    """The instances folder is what it was. Raises LabError while something is in use on the small disk."""
    lab.hosts[host].run(["umount", INSTANCES])


def _some(found: int, what: str) -> None:
    if not found:
        raise LabError(f"there is no {what} to kill")
