"""Two hosts with a guest maker, simulated and real, behind one small interface for the contract tests.

The real ones are the lab's, driven from outside through `remote.py`; they need root and are marked `lab`.
"""

import json
import subprocess
import sys
import uuid as uuids
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from sterna.domain.copying import CopyPlan, DestinationDisk, DestinationNic
from sterna.domain.errors import SternaError
from sterna.domain.files import Created
from sterna.domain.model import Disk, DiskKind, Nic, Vm
from sterna.domain.plugs import BRIDGE, MACVTAP
from sterna.domain.secrets import Secret
from sterna.kit.clock import SystemClock
from sterna.lab import Lab, sabotage, secrets
from sterna.lab.credentials import SSH
from sterna.lab.errors import LabError
from sterna.sim.libvirt import life, streams
from sterna.sim.libvirt.copying import SimCopy
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.storage import SimStorage
from sterna.sim.ports.vif import SimVif
from sterna.sim.ports.volumes import SimIscsiVolumes, SimSharedFiles
from sterna.sim.simulation import SimWorld
from sterna.sim.world.things import Pace, SimPort, SimSecret
from tests.contract.remote import adapters_on
from tests.lab_state import state


class Side:
    """One host's adapters: `hypervisor`, `vif`, `iscsi`, `files`, `storage`."""

    tunnel_uri = ""
    """What the other side's libvirtd calls this one through SSH."""

    def __init__(self, name: str, uri: str, stream: str, instances: str, **adapters: Any) -> None:
        self.name, self.uri, self.stream, self.instances = name, uri, stream, instances
        self.hypervisor = adapters["hypervisor"]
        self.vif = adapters["vif"]
        self.iscsi = adapters["iscsi"]
        self.files = adapters["files"]
        self.storage = adapters["storage"]

    def local(self, disk: Disk) -> Disk:
        """The disk with `local` decided, as the agents would by tokens."""
        mine = disk.kind is DiskKind.FILE and (disk.path or "").startswith(self.instances + "/")
        base = True if mine and disk.backing_path else None  # the bases made here are shared
        return disk.model_copy(
            update={"local": mine if disk.kind is DiskKind.FILE else None, "backing_shared": base}
        )


class TwoHosts:
    """`a` has the guests that `vm` makes, `b` has room for them."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b

    def make_vm(self, disks: tuple[str, ...]) -> str:
        """A running guest on `a` with disks of these kinds (shared, local, iscsi, overlay); its UUID."""
        raise NotImplementedError

    def define_secret(self, side: Side, secret: Secret, value: bytes | None) -> None:
        """An operator's own, with a value or without."""
        raise NotImplementedError

    def undefine_secret(self, side: Side, uuid: str) -> None:
        """An operator takes it away; none is success."""
        raise NotImplementedError

    unhurried: int
    """bytes/s: slow enough that a copy is still under way when a test has done something."""

    def cold_start(self, side: Side, uuid: str) -> None:
        """Power a guest off and on again by its persistent definition."""
        raise NotImplementedError

    def kill_qemu(self, side: Side, vm: Vm) -> None:
        """Its QEMU dies (-9) on this side."""
        raise NotImplementedError

    def knows_behind_link(self, side: Side, nic: Nic) -> bool:
        """Does this side's switch or bridge send frames for that NIC to the other host?"""
        raise NotImplementedError

    def open_tap(self, side: Side, device: str) -> None:
        """A process opens a tap, as QEMU does, until `close_taps`."""

    def close_taps(self) -> None:
        """Those processes end."""

    def has_device(self, side: Side, device: str) -> bool:
        """Is there such a device on this side?"""
        raise NotImplementedError

    def devices(self, side: Side, port_id: str) -> set[str]:
        """The devices and ports on this side that are named after that port."""
        raise NotImplementedError

    def drop_port(self, side: Side, port: str) -> None:
        """A network agent takes a port off the integration bridge; its device stays."""
        raise NotImplementedError

    def say_installed(self, side: Side, port: str) -> None:
        """OVN's controller has wired a port."""
        raise NotImplementedError

    def marked_by_libvirt(self, side: Side, port: str, vm_uuid: str) -> None:
        """A port's VM is said in libvirt's word, `vm-id`, and no longer in os-vif's."""
        raise NotImplementedError

    def add_macvtap(self, side: Side, parent: str, mac: str) -> None:
        """A macvtap of somebody else's, in bridge mode."""
        raise NotImplementedError

    def break_stream(self) -> None:
        """The memory stream from `a` to `b` is lost; the link is whole again afterwards."""
        raise NotImplementedError

    def export_disks(self, vm: Vm) -> None:
        """The QEMU on `a` offers the guest's first disk over NBD."""
        raise NotImplementedError

    def exports(self, vm: Vm) -> list[str]:
        """What the QEMU on `a` offers over NBD."""
        raise NotImplementedError

    def disk_speeds(self, vm: Vm) -> list[int]:
        """Limits, in bytes/s, of the disks of the copy under way on `a` that are not yet whole there."""
        raise NotImplementedError

    def stream_of(self, vm: Vm) -> set[str]:
        """What the stream of the copy under way on `a` is made of, by what QEMU itself is set to."""
        raise NotImplementedError

    async def vm(self, *disks: str) -> Vm:
        """As `make_vm`; described by its host, `local` decided."""
        vm: Vm = await self.a.hypervisor.vm(self.make_vm(disks or ("shared",)))
        return vm.model_copy(update={"disks": tuple(self.a.local(d) for d in vm.disks)})

    async def prepare(
        self,
        vm: Vm,
        epoch: int,
        *,
        source: Side,
        destination: Side,
        flags: tuple[str, ...] = (),
        parameters: dict[str, int | str] | None = None,
        limit_bytes_s: int | None = None,
        **more: Any,
    ) -> CopyPlan:
        """P4-P11 by hand, and the epoch written: everything M4 needs. `flags`: beside those of every copy."""
        numbers: dict[str, int | str] = {}
        if limit_bytes_s is not None:
            numbers["bandwidth"] = limit_bytes_s >> 20
            numbers |= {"bandwidth.postcopy": limit_bytes_s >> 20} if "POSTCOPY" in flags else {}
        more |= {"flags": ("LIVE", "PEER2PEER", *flags), "parameters": numbers | (parameters or {})}
        migration_id = str(uuids.uuid4())
        await source.hypervisor.mark(vm.uuid, migration_id, epoch)
        copied = tuple(d for d in vm.disks if d.local)
        created = await destination.storage.plan_targets(vm.uuid, copied)
        await destination.storage.create_targets(copied, created)
        disks = []
        for disk in vm.disks:
            if disk.kind is DiskKind.ISCSI:
                disk = await destination.iscsi.connect(await destination.iscsi.attach(disk))  # noqa: PLW2901
            facts: dict[str, Any] = {
                "target": disk.target,
                "kind": disk.kind,
                "path": disk.path,
                "iscsi": disk.iscsi,
            }
            disks.append(DestinationDisk(**facts, copied=bool(disk.local), from_base=bool(disk.backing_shared)))
        if "TUNNELLED" in flags:
            more = {"destination_uri": destination.tunnel_uri, "migrate_uri": None} | more
        nics = []
        for index, nic in enumerate(vm.nics):
            known = await source.vif.describe(nic) or nic
            tap = f"tap{vm.uuid[:8]}{index}"
            plugged = await destination.vif.plug(known, vm_uuid=vm.uuid, device=tap)
            await destination.vif.make_way(plugged)
            facts = {"mac": nic.mac, "device": plugged.device or "", "bridge": plugged.bridge or ""}
            facts |= {"port_id": plugged.port_id or "", "plug": plugged.plug, "parent": plugged.parent}
            nics.append(DestinationNic(**facts, vlan=plugged.vlan, mode=plugged.mode))
        uris = {"destination_uri": destination.uri, "migrate_uri": destination.stream}
        return CopyPlan(migration_id=migration_id, epoch=epoch, disks=tuple(disks), nics=tuple(nics), **uris | more)

    async def unplug(self, side: Side, plan: CopyPlan) -> None:
        """R6 on `side` by hand."""
        for nic in plan.nics:
            await side.vif.unplug(Nic.model_validate(nic.model_dump()))

    async def clear(self, vm: Vm, epoch: int, side: Side) -> None:
        """F2-F10 on `side` by hand."""
        for disk in vm.disks:
            if disk.kind is DiskKind.ISCSI:
                await side.iscsi.disconnect(disk)
                await side.iscsi.detach(disk)
        for nic in vm.nics:
            port = await side.vif.describe(nic)
            if port is not None:
                await side.vif.unplug(port)
        await side.hypervisor.undefine(vm.uuid, epoch)
        files = tuple(d.path for d in vm.disks if d.local and d.path)
        await side.storage.remove(Created(files=files, directories=await side.storage.directories_of(vm.uuid)))

    async def settled(self, side: Side, uuid: str) -> Any:
        """What `side` sees once no migration job of the guest is left there."""
        while (seen := await side.hypervisor.observe(uuid)).job_active:
            pass
        return seen


class SimulatedHosts(TwoHosts):
    def __init__(self, world: SimWorld) -> None:
        self.world = world
        super().__init__(*(self._side(name) for name in ("host1", "host2")))

    def _side(self, name: str) -> Side:
        host = self.world.add_host(name)
        host.abilities = host.abilities.model_copy(update={"tls": True})
        side = Side(
            name,
            host.uri,
            f"tcp://{host.address}",
            host.instances_dir,
            hypervisor=SimHypervisor(self.world, name),
            vif=SimVif(self.world, name),
            iscsi=SimIscsiVolumes(self.world, name),
            files=SimSharedFiles(self.world, name),
            storage=SimStorage(self.world, name),
        )
        side.tunnel_uri = f"qemu+ssh://root@{host.address}/system"
        return side

    def make_vm(self, disks: tuple[str, ...]) -> str:
        return life.add_vm(self.world, "host1", f"g{len(self.world.guests)}", disks=disks)

    def define_secret(self, side: Side, secret: Secret, value: bytes | None) -> None:
        self.world.hosts[side.name].secrets[secret.uuid] = SimSecret(secret, value)

    def undefine_secret(self, side: Side, uuid: str) -> None:
        self.world.hosts[side.name].secrets.pop(uuid, None)

    unhurried = 256 << 20

    def kill_qemu(self, side: Side, vm: Vm) -> None:
        life.kill_qemu(self.world, side.name, vm.uuid)

    def knows_behind_link(self, side: Side, nic: Nic) -> bool:
        return self.world.learnt.get(nic.mac, side.name) != side.name

    def has_device(self, side: Side, device: str) -> bool:
        return device in self.world.hosts[side.name].taps

    def devices(self, side: Side, port_id: str) -> set[str]:
        host = self.world.hosts[side.name]
        return {name for name in host.taps | host.links | set(host.ports) if name.endswith(port_id[:11])}

    def drop_port(self, side: Side, port: str) -> None:
        del self.world.hosts[side.name].ports[port]

    def say_installed(self, side: Side, port: str) -> None:
        ports = self.world.hosts[side.name].ports
        ports[port] = replace(ports[port], external_ids=ports[port].external_ids | {"ovn-installed": "true"})

    def marked_by_libvirt(self, side: Side, port: str, vm_uuid: str) -> None:
        ports = self.world.hosts[side.name].ports
        kept = {key: value for key, value in ports[port].external_ids.items() if key != "vm-uuid"}
        ports[port] = replace(ports[port], external_ids=kept | {"vm-id": vm_uuid})

    def add_macvtap(self, side: Side, parent: str, mac: str) -> None:
        self.world.add_port(side.name, SimPort("macvtap7", parent, plug=MACVTAP, mac=mac, mode="bridge"))

    def break_stream(self) -> None:
        self.world.cut("host1", "host2", kinds=("stream",))
        self.world.mend("host1", "host2")

    def export_disks(self, vm: Vm) -> None:
        self.world.hosts["host1"].domains[vm.uuid].exports = ("libvirt-nbd",)

    def exports(self, vm: Vm) -> list[str]:
        return list(self.world.hosts["host1"].domains[vm.uuid].exports)

    def disk_speeds(self, vm: Vm) -> list[int]:
        job = self.world.hosts["host1"].domains[vm.uuid].job
        assert isinstance(job, SimCopy)
        return [job.bandwidth]  # one after the other

    def stream_of(self, vm: Vm) -> set[str]:
        job = self.world.hosts["host1"].domains[vm.uuid].job
        assert isinstance(job, SimCopy)
        found = {f.lower() for f in streams.features(job.plan)} - {"live", "peer2peer"}
        found |= {"preempt"} if "postcopy" in found else set()  # libvirt's own choice
        found |= {f"{name}={value}" for name, value in job.plan.parameters.items()}
        return found

    def cold_start(self, side: Side, uuid: str) -> None:
        life.kill_qemu(self.world, side.name, uuid)
        life.start(self.world, side.name, uuid)


class LabHosts(TwoHosts):
    def __init__(self, lab: Lab, a: Side, b: Side) -> None:
        super().__init__(a, b)
        self.lab = lab
        self.opened: list[subprocess.Popen[str]] = []

    def make_vm(self, disks: tuple[str, ...]) -> str:
        number = len(self.lab.guest_records())
        return self.lab.create_vm(f"c{number}", self.a.name, memory_mib=256, dirty_mib_s=10, disks=disks).uuid

    def define_secret(self, side: Side, secret: Secret, value: bytes | None) -> None:
        word = value.decode() if value is not None else None
        host = self.lab.host(side.name)
        secrets.define(host, secret.uuid, secret.kind, secret.usage, word, private=secret.private)

    def undefine_secret(self, side: Side, uuid: str) -> None:
        secrets.undefine(self.lab.host(side.name), uuid)

    unhurried = 96 << 20

    def kill_qemu(self, side: Side, vm: Vm) -> None:
        sabotage.kill_qemu(self.lab, side.name, vm.name)

    def knows_behind_link(self, side: Side, nic: Nic) -> bool:
        ask = ["ovs-appctl", "-t", "/run/openvswitch/ovs-vswitchd.ctl", "fdb/show", "br-int"]
        if nic.plug == BRIDGE:
            ask = ["bridge", "fdb", "show", "br", nic.bridge or ""]
        return nic.mac in self.lab.host(side.name).run(ask).stdout

    def open_tap(self, side: Side, device: str) -> None:
        hold = (
            "import fcntl, os, signal, struct; fd = os.open('/dev/net/tun', os.O_RDWR); "
            f"fcntl.ioctl(fd, 0x400454CA, struct.pack('16sH22x', b'{device}', 0x5002)); "
            "print(flush=True); signal.pause()"
        )
        process = self.lab.host(side.name).popen([sys.executable, "-c", hold])
        self.opened.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        state = f"/sys/class/net/{device}/brport/state"
        self.lab.host(side.name).run(["sh", "-c", f"until [ $(cat {state}) = 3 ]; do sleep 0.02; done"], timeout=5)

    def close_taps(self) -> None:
        while self.opened:
            process = self.opened.pop()
            process.kill()
            process.wait()

    def has_device(self, side: Side, device: str) -> bool:
        return device in self.lab.host(side.name).run(["ls", "/sys/class/net"]).stdout.split()

    def devices(self, side: Side, port_id: str) -> set[str]:
        host = self.lab.host(side.name)
        names = {path.rpartition("/")[2] for path in host.run(["ls", "/sys/class/net"]).stdout.split()}
        names |= set(host.run(["ovs-vsctl", "list-ports", "br-int"]).stdout.split())
        return {name for name in names if name.endswith(port_id[:11])}

    def drop_port(self, side: Side, port: str) -> None:
        self.lab.hosts[side.name].run(["ovs-vsctl", "del-port", "br-int", port])

    def say_installed(self, side: Side, port: str) -> None:
        told = ["ovs-vsctl", "set", "Interface", port, "external_ids:ovn-installed=true"]
        self.lab.hosts[side.name].run(told)

    def marked_by_libvirt(self, side: Side, port: str, vm_uuid: str) -> None:
        told = ["ovs-vsctl", "remove", "Interface", port, "external_ids", "vm-uuid"]
        told += ["--", "set", "Interface", port, f"external_ids:vm-id={vm_uuid}"]
        self.lab.hosts[side.name].run(told)

    def add_macvtap(self, side: Side, parent: str, mac: str) -> None:
        add = ["ip", "link", "add", "macvtap7", "link", parent, "address", mac, "type", "macvtap", "mode", "bridge"]
        self.lab.host(side.name).run(add)

    def break_stream(self) -> None:
        there = self.lab.host(self.b.name).address
        self.lab.host(self.a.name).run(["ss", "-K", "dst", there, "dport", ">=", "49152"])

    def _qmp(self, vm: Vm, command: str) -> Any:
        said = self.lab.host(self.a.name).virsh("qemu-monitor-command", vm.name, json.dumps({"execute": command}))
        return json.loads(said)["return"]

    def export_disks(self, vm: Vm) -> None:
        host, path = self.lab.host(self.a.name), f"/run/{vm.uuid}.nbd"
        (node, *_) = [b["inserted"]["node-name"] for b in self._qmp(vm, "query-block") if "inserted" in b]
        address = {"addr": {"type": "unix", "data": {"path": path}}}
        export = {"type": "nbd", "id": "left", "node-name": node, "name": "left", "writable": False}
        for command, arguments in (("nbd-server-start", address), ("block-export-add", export)):
            request = json.dumps({"execute": command, "arguments": arguments})
            said = host.virsh("qemu-monitor-command", vm.name, request)
            assert "error" not in json.loads(said), said

    def exports(self, vm: Vm) -> list[str]:
        return [export["id"] for export in self._qmp(vm, "query-block-exports")]

    def disk_speeds(self, vm: Vm) -> list[int]:
        jobs = self._qmp(vm, "query-block-jobs")
        return [job["speed"] for job in jobs if job["type"] == "mirror" and not job["ready"]]

    def stream_of(self, vm: Vm) -> set[str]:
        on = {c["capability"] for c in self._qmp(vm, "query-migrate-capabilities") if c["state"]}
        told = self._qmp(vm, "query-migrate-parameters")
        sockets = self.lab.host(self.a.name).run(["ss", "-Htnp", "state", "established"]).stdout.splitlines()
        there = self.lab.host(self.b.name).address
        outside = any(there in line and "qemu" in line for line in sockets)
        return {
            *({"tls"} if told.get("tls-creds") else set()),
            *({"tunnelled"} if not outside else set()),
            *({"postcopy"} if "postcopy-ram" in on else set()),
            *({"preempt"} if "postcopy-preempt" in on else set()),
            *({"parallel", f"parallel.connections={told['multifd-channels']}"} if "multifd" in on else set()),
            *({"zerocopy"} if "zero-copy-send" in on else set()),
            *(
                {"compressed", f"compression={told['multifd-compression']}"}
                if told["multifd-compression"] != "none"
                else set()
            ),
            f"bandwidth.avail.switchover={told['avail-switchover-bandwidth'] >> 20}",
        }

    def cold_start(self, side: Side, uuid: str) -> None:
        self.lab.host(side.name).virsh("destroy", uuid)
        self.lab.host(side.name).virsh("start", uuid)

    def remove_guests(self) -> None:
        for name in list(self.lab.guest_records()):
            try:
                self.lab.remove_vm(name)
            except LabError:  # it may keep the job of a QEMU that died in post-copy (see the field notes)
                for host in self.lab.hosts:
                    sabotage.kill_libvirtd(self.lab, host)
                    sabotage.start_libvirtd(self.lab, host)
                self.lab.remove_vm(name)


@pytest.fixture(scope="module")
def contract_lab() -> Iterator[Lab]:
    """Two hosts without agents; they die with the test run."""
    lab = Lab.up(state("contract"), agents=False, owner=True)
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture(params=["sim", pytest.param("lab", marks=pytest.mark.lab)])
async def hosts(request: pytest.FixtureRequest) -> AsyncIterator[TwoHosts]:
    """Each contract test runs against both."""
    if request.param == "sim":
        world = SimWorld(SystemClock(), pace=Pace(prepare_ms=30, confirm_ms=50))
        yield SimulatedHosts(world)
        await world.close()
        return
    lab: Lab = request.getfixturevalue("contract_lab")
    async with AsyncExitStack() as stack:
        sides = []
        for name in ("host1", "host2"):
            there = await stack.enter_async_context(adapters_on(lab, name))
            host = lab.host(name)
            ports = {"hypervisor": there.hypervisor, "vif": there.vif, "iscsi": there.tgt}
            ports |= {"files": there.files, "storage": there.storage}
            side = Side(name, host.peer_uri, f"tcp://{host.address}", there.instances, **ports)
            side.tunnel_uri = f"qemu+ssh://root@{host.address}/system?command={SSH}/ssh"
            sides.append(side)
        both = LabHosts(lab, *sides)
        try:
            yield both
        finally:
            both.remove_guests()


async def outcome(call: Any) -> str:
    """The code of the error a call raises, else the repr of its answer."""
    try:
        return repr(await call)
    except SternaError as error:
        return error.code
