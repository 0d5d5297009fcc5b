"""Kill and restart the parts of a lab, for fault tests. Called by tests; a lab on its own never does this."""

import os
import select
import signal
from collections.abc import Callable

from sterna.lab.errors import LabError
from sterna.lab.lab import Lab
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import LAB_ADDRESS

GONE_SECONDS = 10


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


def _some(found: int, what: str) -> None:
    if not found:
        raise LabError(f"there is no {what} to kill")
