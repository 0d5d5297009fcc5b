"""The two hosts of the contract tests, simulated."""

from dataclasses import replace

from sterna.domain.model import Nic, Vm
from sterna.domain.plugs import MACVTAP
from sterna.domain.secrets import Secret
from sterna.sim.libvirt import guests, streams
from sterna.sim.libvirt.copying import SimCopy
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.storage import SimStorage
from sterna.sim.ports.vif import SimVif
from sterna.sim.ports.volumes import SimIscsiVolumes, SimSharedFiles
from sterna.sim.simulation import SimWorld
from sterna.sim.world.things import SimPort, SimSecret
from tests.contract.two_hosts import Side, TwoHosts


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
        return guests.add_vm(self.world, "host1", f"g{len(self.world.guests)}", disks=disks)

    def define_secret(self, side: Side, secret: Secret, value: bytes | None) -> None:
        self.world.hosts[side.name].secrets[secret.uuid] = SimSecret(secret, value)

    def undefine_secret(self, side: Side, uuid: str) -> None:
        self.world.hosts[side.name].secrets.pop(uuid, None)

    unhurried = 256 << 20

    def kill_qemu(self, side: Side, vm: Vm) -> None:
        guests.kill_qemu(self.world, side.name, vm.uuid)

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
        guests.kill_qemu(self.world, side.name, uuid)
        guests.start(self.world, side.name, uuid)
