"""The two hosts of the contract tests, in the lab: driven from outside through `remote.py`. They need root."""

import json
import subprocess
import sys
from typing import Any

from sterna.domain.model import Nic, Vm
from sterna.domain.plugs import BRIDGE
from sterna.domain.secrets import Secret
from sterna.lab import Lab, sabotage, secrets
from sterna.lab.errors import LabError
from tests.contract.two_hosts import Side, TwoHosts


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
        command = ["ovs-vsctl", "set", "Interface", port, "external_ids:ovn-installed=true"]
        self.lab.hosts[side.name].run(command)

    def marked_by_libvirt(self, side: Side, port: str, vm_uuid: str) -> None:
        command = ["ovs-vsctl", "remove", "Interface", port, "external_ids", "vm-uuid"]
        command += ["--", "set", "Interface", port, f"external_ids:vm-id={vm_uuid}"]
        self.lab.hosts[side.name].run(command)

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
        parameters = self._qmp(vm, "query-migrate-parameters")
        sockets = self.lab.host(self.a.name).run(["ss", "-Htnp", "state", "established"]).stdout.splitlines()
        there = self.lab.host(self.b.name).address
        outside = any(there in line and "qemu" in line for line in sockets)
        return {
            *({"tls"} if parameters.get("tls-creds") else set()),
            *({"tunnelled"} if not outside else set()),
            *({"postcopy"} if "postcopy-ram" in on else set()),
            *({"preempt"} if "postcopy-preempt" in on else set()),
            *({"parallel", f"parallel.connections={parameters['multifd-channels']}"} if "multifd" in on else set()),
            *({"zerocopy"} if "zero-copy-send" in on else set()),
            *(
                {"compressed", f"compression={parameters['multifd-compression']}"}
                if parameters["multifd-compression"] != "none"
                else set()
            ),
            f"bandwidth.avail.switchover={parameters['avail-switchover-bandwidth'] >> 20}",
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
