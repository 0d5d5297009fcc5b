"""What a look at one host means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sterna.domain.capabilities import dotted, version
from sterna.domain.doctor.findings import Finding, Level
from sterna.domain.doctor.looks import CertificateSeen, HostLook

LEAST_REQUESTS = 20
"""libvirtd's own default is 5. Each migration that runs has a call open for as long as it takes."""
LEAST_PORTS = 4
"""A migration with local disks takes two."""
LEAST_JOURNAL_BYTES = 256 << 20
LEAST_INSTANCES_BYTES = 1 << 30
QEMU_FOR_TCG, LIBVIRT_USUAL = version(8), version(9)
"""QEMU loses pages of software-emulated guests before; libvirt lacks several features of a copy before."""

Judged = tuple[Level, str, str]
"""Level, message and fix."""
_OK, _WARNING, _WRONG = Level.OK, Level.WARNING, Level.WRONG


def judge_host(look: HostLook, *, knows_nova: bool = False) -> list[Finding]:
    """Every requirement that could be looked at, one line each; certificates one line for each file. `knows_nova`:
    the controller asks the Nova that manages VMs there."""
    found = [
        Finding(check=name, level=judged[0], host=look.host, message=judged[1], fix=judged[2])
        for name, check in _CHECKS.items()
        if (judged := check(look)) is not None
    ]
    found += [_of_certificate(look.host, one) for one in look.certificates]
    if look.nova_vms is not None:
        found.append(_of_nova(look.host, look.nova_vms, known=knows_nova))
    return found + list(_unseen(look))


def _unseen(look: HostLook) -> Iterator[Finding]:
    for why in look.unseen:
        message = f"something could not be checked: {why}"
        yield Finding(
            check="agent", level=_WARNING, host=look.host, message=message, fix="see the agent's log there"
        )


def _bus(look: HostLook) -> Judged:
    if look.bus_error:
        return (
            _WRONG,
            f"no connection: {look.bus_error}",
            "check `[bus]` in the settings, and nats-server",
        )
    return _OK, "connected to the message bus", ""


def _libvirt(look: HostLook) -> Judged:
    if look.facts is None:
        why = look.libvirt_error or "it does not describe the host"
        return _WRONG, f"libvirtd cannot be used: {why}", look.libvirt_fix or "systemctl restart libvirtd"
    return _OK, f"libvirt {dotted(look.facts.libvirt_version)} answers", ""


def _versions(look: HostLook) -> Judged | None:
    if look.facts is None:
        return None
    qemu, libvirt = look.facts.qemu_version, look.facts.libvirt_version
    words = f"libvirt {dotted(libvirt)}, QEMU {dotted(qemu)}"
    if qemu < QEMU_FOR_TCG:
        return (
            _WARNING,
            f"{words}: software-emulated VMs cannot arrive before QEMU 8.0",
            "install QEMU 8.0 or newer",
        )
    if libvirt < LIBVIRT_USUAL:
        return _WARNING, f"{words}: copies cannot use features of newer versions", "install libvirt 9.0 or newer"
    return _OK, words, ""


def _kvm(look: HostLook) -> Judged | None:
    if look.kvm is None:
        return None
    if look.kvm:
        return _OK, "KVM can be used", ""
    fix = "enable virtualisation in the firmware, then `modprobe kvm_intel` or `modprobe kvm_amd`; restart libvirtd"
    return _WRONG, "libvirt offers no KVM: VMs that use it can neither start here nor arrive", fix


def _encryption(look: HostLook) -> Judged | None:
    if look.facts is None:
        return None
    able = look.facts.abilities
    if able.insecure:
        fix = "remove `insecure` from [migration] of the agent's settings, unless nobody else can reach the network"
        return _WARNING, "memory, disks and calls to libvirt may be sent UNENCRYPTED (insecure = true)", fix
    if able.tls is False:
        fix = '`sterna agent join - --libvirt`, or install the files that qemu.conf names; or `transport = "ssh"`'
        return _WRONG, "QEMU has no certificates, and nothing may be sent unencrypted: copies need SSH", fix
    return (_OK, "QEMU's streams are encrypted", "") if able.tls else None


def _enrolment(look: HostLook) -> Judged | None:
    if look.enrolled is None:
        return None
    if look.enrolled:
        return _OK, "it has a certificate for the message bus", ""
    fix = "`sterna host add NAME` on the CA's machine, then `sterna agent join -` here; see docs/how-to/enrol.md"
    return _WARNING, "the bus does not authenticate its clients: anyone who can reach it controls this host", fix


def _clock(look: HostLook) -> Judged | None:
    if look.clock_synchronised is None:
        return None
    if look.clock_synchronised:
        return _OK, "the clock is synchronised", ""
    fix = "`apt-get install chrony`, or `systemctl enable --now systemd-timesyncd`"
    return _WARNING, "the clock is not synchronised, but certificates and permits are checked against it", fix


def _address(look: HostLook) -> Judged | None:
    if look.address_error:
        fix = "correct `address` in [migration] of the agent's settings, or the name service"
        return _WRONG, f"{look.address} cannot be used by other hosts: {look.address_error}", fix
    if look.address_is_own is None:
        return None
    if look.address_is_own:
        mtu = f", MTU {look.mtu}" if look.mtu else ""
        return _OK, f"{look.address} is on {look.device}{mtu}", ""
    fix = "set `address` in [migration] to an address of this host, unless a router translates it (NAT)"
    return _WARNING, f"no device of this host has {look.address}: streams may not arrive", fix


def _requests(look: HostLook) -> Judged | None:
    if look.max_client_requests is None:
        return None
    words = f"libvirtd processes {look.max_client_requests} calls of one client concurrently"
    if look.max_client_requests >= LEAST_REQUESTS:
        return _OK, words, ""
    fix = "set max_client_requests = 50 in libvirtd.conf (or virtqemud.conf), and restart it while nothing migrates"
    return _WARNING, f"{words}: if more migrations than that run, other calls wait", fix


def _userfaultfd(look: HostLook) -> Judged | None:
    able = look.facts.abilities.userfaultfd if look.facts is not None else None
    if able is None:
        return None
    if able:
        return _OK, "VMs can arrive by post-copy", ""
    fix = "`echo vm.unprivileged_userfaultfd=1 > /etc/sysctl.d/60-sterna.conf && sysctl --system`"
    return _WARNING, "QEMU may not handle page faults: no VM can arrive by post-copy", fix


def _ports(look: HostLook) -> Judged | None:
    if look.ports_free is None:
        return None
    words = f"{look.ports_free} ports of {look.ports} are free for streams"
    if look.ports_free >= LEAST_PORTS:
        return _OK, words, ""
    level = _WARNING if look.ports_free else _WRONG
    fix = (
        "widen migration_port_min and migration_port_max in qemu.conf, or stop the programs that listen there "
        "(`ss -tlnp`)"
    )
    return level, f"{words}: migrations to this host wait for one", fix


def _open_vswitch(look: HostLook) -> Judged | None:
    if look.ovs_error is None:
        return None
    if not look.ovs_error:
        return _OK, "Open vSwitch answers", ""
    fix = '`systemctl restart openvswitch-switch`; or `ovsdb = ""` in [network] if it is not installed'
    return _WRONG, f"Open vSwitch cannot be used: {look.ovs_error}", fix


def _security(look: HostLook) -> Judged | None:
    if look.security_models is None:
        return None
    confining = [model for model in look.security_models if model not in ("dac", "none")]
    if confining:
        return _OK, f"libvirt confines guests with {', '.join(confining)}", ""
    if look.apparmor:
        fix = 'remove security_driver = "none" from qemu.conf, install `apparmor`, restart libvirtd'
        return _WARNING, "AppArmor is active, and libvirt does not confine guests with it", fix
    if "dac" not in look.security_models:
        fix = 'remove security_driver = "none" from qemu.conf, restart libvirtd'
        return _WARNING, "libvirt does not confine guests: code that escapes from one runs as QEMU's user", fix
    return _OK, "libvirt confines guests by users and groups only", ""


def _journal(look: HostLook) -> Judged | None:
    if look.state_error:
        return (
            _WRONG,
            f"the journal cannot be written: {look.state_error}",
            "check the disk and the owner of state_dir",
        )
    if look.state_free_bytes is None:
        return None
    words = f"{look.state_free_bytes >> 20} MiB free for the journal in {look.state_dir}"
    if look.state_free_bytes >= LEAST_JOURNAL_BYTES:
        return _OK, words, ""
    return _WARNING, f"{words}: if it is full, the host takes part in no migration", "free space there"


def _instances(look: HostLook) -> Judged | None:
    if look.instances_error:
        fix = "create the folder, owned by root; or correct `instances_dir` in the agent's settings"
        return _WRONG, f"local disks cannot be stored: {look.instances_error}", fix
    if look.instances_free_bytes is None:
        return None
    words = f"{look.instances_free_bytes >> 30} GiB free for local disks"
    if look.instances_free_bytes >= LEAST_INSTANCES_BYTES:
        return _OK, words, ""
    return _WARNING, f"{words}: VMs with local disks cannot arrive", "free space in instances_dir"


def _bus_rights(look: HostLook) -> Judged | None:
    if not look.allow_responses:
        return None
    fix = (
        "`sterna bus config` writes a file without it; then `nats-server --signal reload`; see "
        "docs/how-to/upgrade.md"
    )
    words = f"{look.allow_responses} has allow_responses: an enrolled host can send messages under any name"
    return _WRONG, words, fix


_CHECKS: dict[str, Callable[[HostLook], Judged | None]] = {
    "bus": _bus,
    "libvirt": _libvirt,
    "versions": _versions,
    "kvm": _kvm,
    "encryption": _encryption,
    "enrolment": _enrolment,
    "clock": _clock,
    "address": _address,
    "max-client-requests": _requests,
    "userfaultfd": _userfaultfd,
    "stream-ports": _ports,
    "open-vswitch": _open_vswitch,
    "security-driver": _security,
    "journal": _journal,
    "instances-dir": _instances,
    "bus-rights": _bus_rights,
}


def _of_certificate(host: str, seen: CertificateSeen) -> Finding:
    level, message, fix = _OK, f"{seen.file}, for {seen.serves}, is valid until {seen.ends[:10]}", ""
    if seen.faults:
        level, message = _WRONG, f"{seen.file}, for {seen.serves}, cannot be used: {'; '.join(seen.faults)}"
        fix = (
            "let the host join again: `sterna host add NAME`, `sterna agent join - --libvirt`; or replace the file"
        )
    elif seen.warned:
        level, message = _WARNING, f"{seen.file}, for {seen.serves}, expires on {seen.ends[:10]}"
        fix = "find out why it is not renewed: `systemctl status sterna-agent`; or replace the file"
    return Finding(check="certificates", level=level, host=host, message=message, fix=fix)


def _of_nova(host: str, vms: int, *, known: bool) -> Finding:
    if not vms:
        return Finding(check="nova", level=_OK, host=host, message="no VM here was created by Nova")
    if known:
        return Finding(
            check="nova", level=_OK, host=host, message=f"Nova created {vms} VMs here, and the controller asks it"
        )
    message = f"Nova created {vms} VMs here: its records do not follow a migration that it did not start"
    fix = (
        "if that Nova still runs, set `region` in [nova] of the controller's settings; see docs/how-to/openstack.md"
    )
    return Finding(check="nova", level=_WARNING, host=host, message=message, fix=fix)
