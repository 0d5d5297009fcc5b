"""Makes a lab: checks the machine, starts the namespaces, the networks, the services and the hosts.

Called by `Lab.up`, which records and returns the result.
"""

import os
import shutil
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from sterna.lab import ending, namespaces
from sterna.lab.accelerator import choose_accelerator
from sterna.lab.credentials import write_credentials
from sterna.lab.enrolment import enrolled, hand_out
from sterna.lab.errors import LabError
from sterna.lab.guest_image import build_guest_image
from sterna.lab.host import etc_hosts, furnish_host, run_setup, start_host, write_host_files
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import (
    BUS_SETTINGS,
    FURTHER_NICS,
    ISCSI_PORTAL_PORT,
    LAB_ADDRESS,
    TENANT_ADDRESS,
    TENANT_VLAN,
    cache_dir,
    management_address,
)
from sterna.lab.record import HostRecord, LabRecord, Process

MOST_HOSTS = 40
SERVICES_SECONDS = 20.0
HIDDEN = ("/run", "/srv", "/proc", "/sys", "/dev")
TOOLS = (
    "libvirtd",
    "virtlogd",
    "ovs-vswitchd",
    "ovsdb-server",
    "tgtd",
    "nats-server",
    "tini",
    "ethtool",
    "openssl",
    "sshd",
)


def check_machine(state: Path, hosts: int) -> None:
    """Raises LabError for what can be known beforehand."""
    if os.geteuid() != 0:
        raise LabError("the lab makes network and mount namespaces: run this as root")
    if not 1 <= hosts <= MOST_HOSTS:
        raise LabError(f"a lab has 1 to {MOST_HOSTS} hosts, not {hosts}")
    for path in (state, Path(__file__), Path(sys.executable)):
        if any(path.is_relative_to(hidden) for hidden in HIDDEN):
            raise LabError(
                f"{path} is not visible inside lab hosts, which have their own {', '.join(HIDDEN)}; "
                "use a checkout and a state folder elsewhere"
            )
    for tool in TOOLS:
        if shutil.which(tool, path=namespaces.PATH) is None:
            raise LabError(f"{tool} is missing: `make setup` installs what the lab needs")


def build_lab(state: Path, count: int, owner: bool, *, insecure: bool = False) -> LabRecord:
    """A lab of `count` hosts, recorded from its first process on; raises LabError when something does not start.

    `insecure`: nothing that is migrated is encrypted.
    """
    image = build_guest_image(cache_dir())
    accelerator = choose_accelerator(image, cache_dir())
    addresses = {f"host{index}": management_address(index) for index in range(1, count + 1)}
    made = enrolled(cache_dir(), addresses)
    _write_files(state, addresses, insecure=insecure)
    hand_out(made, state, addresses)
    outer, process = namespaces.start_outer(["lab", str(state)], owner, state / "logs/outer.log")
    ending.started[outer.init.pid] = process
    record = LabRecord(
        outer=Process.of(outer.init),
        owner_pid=os.getpid() if owner else None,
        accelerator=accelerator,
        insecure=insecure,
    )
    record.save(state)
    variables = {"LAB": str(state), "LAB_ADDRESS": LAB_ADDRESS, "TENANT_ADDRESS": TENANT_ADDRESS}
    variables["MORE_ADDRESSES"] = " ".join(f"{network}={subnet}.1" for network, subnet in FURTHER_NICS.values())
    run_setup("outer", outer, variables)
    hosts = [
        start_host(state, name, index, address, outer, insecure=insecure)
        for index, (name, address) in enumerate(addresses.items(), start=1)
    ]
    for host in hosts:
        record.hosts[host.name] = HostRecord(
            name=host.name, index=host.index, address=host.address, init=Process.of(host.inside.init)
        )
    record.save(state)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda host: furnish_host(host, state, image.folder, TENANT_VLAN), hosts))
    for port in (4222, ISCSI_PORTAL_PORT):
        _await_port(outer, port, state)
    return record


def _write_files(state: Path, addresses: dict[str, str], *, insecure: bool) -> None:
    for folder in ("shared", "iscsi", "nats", "logs"):
        (state / folder).mkdir()
    for name, address in addresses.items():
        write_host_files(state / "hosts" / name, name, address, insecure=insecure)
    write_credentials({name: (at, state / "hosts" / name / "etc/libvirt") for name, at in addresses.items()})
    (state / "nats.conf").write_text(BUS_SETTINGS)
    (state / "hosts/etc-hosts").write_text(etc_hosts(addresses))


def _await_port(outer: Namespaces, port: int, state: Path) -> None:
    """Waits until the lab's own service on `port` accepts connections."""
    deadline = time.monotonic() + SERVICES_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), outer.open_socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect((LAB_ADDRESS, port))
            return
        time.sleep(0.02)
    raise LabError(f"nothing listens on {LAB_ADDRESS}:{port} in the lab; see {state}/logs")
