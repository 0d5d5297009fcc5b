"""Kill, freeze, fill and restart the parts of a lab, for fault tests. Called by tests; a lab on its own never does
this. Links are broken in links.py.

A `Victim` is one part: `freeze(libvirtd(lab, "host1"))`, `thaw(...)`, `kill(...)`. A frozen part keeps its sockets
and does not answer, as one that hangs; it can still be killed, and it dies with its lab.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sterna.lab import namespaces
from sterna.lab.database import is_backend, is_server
from sterna.lab.errors import LabError
from sterna.lab.lab import Lab
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import BUS_SETTINGS, INSTANCES, LAB_ADDRESS

GONE_SECONDS = 10
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.005
FILLER = "filler-of-a-fault-test"


@dataclass(frozen=True)
class Victim:
    """A part of a lab that can be killed, frozen and thawed: processes of one set of namespaces."""

    what: str
    """For messages: `libvirtd on host1`."""
    inside: Namespaces
    picks: Callable[[list[str]], bool]
    """Is this the command line of one of its processes?"""
    family: bool = False
    """Its children are victims too: they work on without it."""

    def pids(self) -> list[int]:
        """The machine's PIDs of its processes, without children that were forked and have not executed their own
        program yet: they look like their parent. Raises LabError when there are none."""
        alike = [pid for pid, argv in self.inside.processes() if self.picks(argv)]
        found = [pid for pid in alike if self.family or namespaces.parent_of(pid) not in alike]
        if not found:
            raise LabError(f"there is no {self.what}")
        return found


def _daemon(name: str, where: str, inside: Namespaces) -> Victim:
    return Victim(f"{name}{where}", inside, lambda argv: os.path.basename(argv[0]) == name)


def _sterna(part: str, where: str, inside: Namespaces) -> Victim:
    return Victim(f"{part}{where}", inside, lambda argv: argv[1:4] == ["-m", "sterna", part])


def libvirtd(lab: Lab, host: str) -> Victim:
    """A host's libvirtd; its QEMUs are others."""
    return _daemon("libvirtd", f" on {host}", lab.host(host).inside)


def ovsdb_server(lab: Lab, host: str) -> Victim:
    """The database of a host's Open vSwitch."""
    return _daemon("ovsdb-server", f" on {host}", lab.host(host).inside)


def ovs_vswitchd(lab: Lab, host: str) -> Victim:
    """A host's switch; with the `netdev` datapath it carries every packet of the guests' network itself."""
    return _daemon("ovs-vswitchd", f" on {host}", lab.host(host).inside)


def qemu(lab: Lab, host: str, guest: str) -> Victim:
    """A guest's QEMU on one host, also one that still waits for its memory."""
    ours = f"guest={guest},"
    return Victim(
        f"QEMU of {guest} on {host}",
        lab.host(host).inside,
        lambda argv: "qemu" in argv[0] and any(ours in word for word in argv),
    )


def agent(lab: Lab, host: str) -> Victim:
    """A host's Sterna agent."""
    return _sterna("agent", f" on {host}", lab.host(host).inside)


def controller(lab: Lab, number: int | None = None) -> Victim:
    """One controller, or all of them."""
    which = "" if number is None else f" {number}"
    return Victim(f"controller{which}", lab.outer, lambda argv: lab.is_controller(argv, number))


def postgresql(lab: Lab) -> Victim:
    """The controllers' database, if the lab has one: its first process and those that serve the clients."""
    return Victim("PostgreSQL", lab.outer, lambda argv: is_server(argv) or is_backend(argv), family=True)


def postmaster(lab: Lab) -> Victim:
    """The first process of the database alone: when it is killed, the others end by themselves."""
    return Victim("postmaster", lab.outer, is_server)


def nats_server(lab: Lab) -> Victim:
    """The bus."""
    return _daemon("nats-server", "", lab.outer)


def tgtd(lab: Lab) -> Victim:
    """The iSCSI target of all hosts."""
    return _daemon("tgtd", "", lab.outer)


def freeze(victim: Victim) -> None:
    """It hangs (SIGSTOP). Returns when the kernel says of all its threads that they are stopped, also of processes
    that were forked meanwhile.

    Raises LabError when there is no such process, or when it is not stopped after 10 s.
    """
    deadline = time.monotonic() + STOP_SECONDS
    _signal(victim, signal.SIGSTOP, _all_stopped)
    while not frozen(victim):
        if time.monotonic() > deadline:
            raise LabError(f"{victim.what} has processes that are not stopped after {STOP_SECONDS:g} s")
        _signal(victim, signal.SIGSTOP, _all_stopped)


def thaw(victim: Victim) -> None:
    """It goes on (SIGCONT). Returns when no thread of it is stopped any more.

    Raises LabError when there is no such process, or when it is still stopped after 10 s.
    """
    _signal(victim, signal.SIGCONT, lambda states: "T" not in states)


def frozen(victim: Victim) -> bool:
    """Whether all its threads are stopped. Raises LabError when there is no such process."""
    return all(_all_stopped(_states(pid)) for pid in victim.pids())


def _all_stopped(states: set[str]) -> bool:
    """Of one process: none are left of one that has ended."""
    return states <= {"T"}


def kill(victim: Victim) -> None:
    """It dies (SIGKILL), also while it is frozen. Returns once it is gone.

    Raises LabError when there is no such process, or when it is not gone after 10 s.
    """
    if not kill_all(victim.inside, victim.picks):
        raise LabError(f"there is no {victim.what}")


def kill_all(inside: Namespaces, is_victim: Callable[[list[str]], bool]) -> int:
    """kill -9 every process of a set of namespaces whose command line `is_victim` picks; how many there were.

    Returns once they are gone. Raises LabError if one is not after 10 s.
    """
    victims = [pid for pid, argv in inside.processes() if is_victim(argv)]
    for pid in victims:
        with suppress(ProcessLookupError), _held(pid) as watched:
            signal.pidfd_send_signal(watched, signal.SIGKILL)
            if not select.select([watched], [], [], GONE_SECONDS)[0]:
                raise LabError(f"process {pid} goes on after SIGKILL")
    return len(victims)


def _signal(victim: Victim, number: int, reached: Callable[[set[str]], bool]) -> None:
    """One process of a family may end in between; the others are still signalled."""
    if not sum([_signal_one(victim.what, pid, number, reached) for pid in victim.pids()]):
        raise LabError(f"there is no {victim.what} any more")


def _signal_one(what: str, pid: int, number: int, reached: Callable[[set[str]], bool]) -> bool:
    """Whether the process was there to the end."""
    try:
        with _held(pid) as watched:
            signal.pidfd_send_signal(watched, number)
            deadline = time.monotonic() + STOP_SECONDS
            while not reached(states := _states(pid)):
                if time.monotonic() > deadline:
                    raise LabError(f"{what} is in state {', '.join(sorted(states))} after signal {number}")
                time.sleep(LOOK_SECONDS)
            return bool(states)
    except ProcessLookupError:
        return False


@contextmanager
def _held(pid: int) -> Iterator[int]:
    """A process's pidfd: signals through it never reach another process that got its number."""
    opened = os.pidfd_open(pid)
    try:
        yield opened
    finally:
        os.close(opened)


def _states(pid: int) -> set[str]:
    """The states of a process's threads, as letters; none when it is gone."""
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return set()
    return {state for thread in threads if (state := namespaces.state_of(pid, thread)) is not None}


def kill_libvirtd(lab: Lab, host: str) -> None:
    """The host's libvirtd dies; its QEMUs live on."""
    kill(libvirtd(lab, host))


def start_libvirtd(lab: Lab, host: str) -> None:
    """And is started again, as the lab started it."""
    lab.host(host).run(["libvirtd", "-d", "--listen"])


def kill_qemu(lab: Lab, host: str, guest: str) -> None:
    """One guest's QEMU dies on one host."""
    kill(qemu(lab, host, guest))


def kill_nats(lab: Lab) -> None:
    """The bus dies, with all it held in memory."""
    kill(nats_server(lab))


def start_nats(lab: Lab) -> None:
    """And is started again."""
    config = ["-c", str(lab.state_dir / "nats.conf")]
    argv = ["nats-server", *config, "-a", LAB_ADDRESS, "-p", "4222", "-js", "-sd", str(lab.state_dir / "nats")]
    lab.outer.detach(argv, lab.state_dir / "logs/nats.log")


def set_nats(lab: Lab, settings: str) -> None:
    """The bus gets further settings (`write_deadline: "1s"`), now and whenever it is started again."""
    (lab.state_dir / "nats.conf").write_text(BUS_SETTINGS + settings)
    for pid in nats_server(lab).pids():
        os.kill(pid, signal.SIGHUP)


def kill_controller(lab: Lab) -> None:
    """The controller dies."""
    kill(controller(lab))


def start_ovsdb_server(lab: Lab, host: str) -> None:
    """The database of a host's Open vSwitch is started again after it was killed; the switch finds it by itself."""
    own = lab.host(host).root
    lab.host(host).run(
        [
            "ovsdb-server",
            f"{own}/openvswitch/conf.db",
            "--remote=punix:/run/openvswitch/db.sock",
            *_detached(lab, host, "ovsdb-server"),
        ]
    )


def start_ovs_vswitchd(lab: Lab, host: str) -> None:
    """A host's switch is started again after it was killed; it takes its ports from the database."""
    lab.host(host).run(["ovs-vswitchd", *_detached(lab, host, "ovs-vswitchd")])


def _detached(lab: Lab, host: str, name: str) -> list[str]:
    """As in setup/host.sh."""
    log = f"--log-file={lab.host(host).root}/log/{name}.log"
    return ["--pidfile", "--detach", "--no-chdir", "-vconsole:off", log, f"--unixctl=/run/openvswitch/{name}.ctl"]


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
