"""An accountant of hosts' rooms: what is used, and what that breaks. It shares no code with the planner."""

from __future__ import annotations

from collections import Counter, defaultdict

from sterna.domain.fleet.snapshot import Host, Scope, Snapshot, Vm, huge


class Usage:
    """VMs where they count. Hosts are looked at with every change."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.hosts = {host.name: host for host in snapshot.hosts}
        self.on: defaultdict[str, list[Vm]] = defaultdict(list)
        for vm in snapshot.vms:
            self.on[vm.host].append(vm)
        self.broken_before = self.broken_rules()

    def used(self, name: str) -> Counter[str]:
        """Of each resource."""
        used: Counter[str] = Counter()
        for vm in self.on[name]:
            used["vcpus"] += vm.vcpus
            used[huge(vm.huge_page_bytes) if vm.huge_page_bytes else "memory"] += vm.memory_bytes
            used.update(vm.others)
        return used

    def capacity(self, host: Host) -> dict[str, int]:
        """Of each resource."""
        return {"vcpus": int(host.cpus * host.overcommit), "memory": host.memory_bytes} | host.others

    def over(self, name: str) -> list[str]:
        """What the host has too little of."""
        capacity = self.capacity(self.hosts[name])
        lacking = [what for what, amount in self.used(name).items() if amount > capacity.get(what, 0)]
        return lacking + self._nodes_over(self.hosts[name])

    def _nodes_over(self, host: Host) -> list[str]:
        """Nodes cannot hold the VMs that ask for nodes, whichever they have."""
        asking = [vm for vm in self.on[host.name] if vm.numa_nodes]
        if any(vm.numa_nodes > len(host.cells) for vm in asking):
            return ["nodes"]
        need = Counter[str]()
        for vm in asking:
            need["vcpus"] += vm.vcpus
            need[huge(vm.huge_page_bytes) if vm.huge_page_bytes else "memory"] += vm.memory_bytes
        room = {"vcpus": sum(int(cell.cpus * host.overcommit) for cell in host.cells)}
        room["memory"] = sum(cell.memory_bytes for cell in host.cells)
        for cell in host.cells:
            for what, amount in cell.others.items():
                room[what] = room.get(what, 0) + amount
        return [f"{what} of nodes" for what, amount in need.items() if amount > room.get(what, 0)]

    def has_room(self, vm: Vm, name: str) -> bool:
        """Would it fit, and each of its nodes as well, if all have the first nodes?"""
        host = self.hosts[name]
        self.on[name].append(vm)
        per_node = Counter[str]()
        for one in self.on[name]:
            if one.numa_nodes:
                per_node["vcpus"] += -(-one.vcpus // one.numa_nodes)
                what = huge(one.huge_page_bytes) if one.huge_page_bytes else "memory"
                per_node[what] += -(-one.memory_bytes // one.numa_nodes)
        first = host.cells[0]
        room = {"vcpus": int(first.cpus * host.overcommit), "memory": first.memory_bytes} | first.others
        fits = not self.over(name) and all(amount <= room.get(what, 0) for what, amount in per_node.items())
        self.on[name].remove(vm)
        return fits

    def count(self, vm: Vm, name: str) -> None:
        """From now on it counts there, too."""
        self.on[name].append(vm)

    def discount(self, vm: Vm, name: str) -> None:
        """No more."""
        self.on[name].remove(vm)

    def broken_rules(self) -> set[tuple[str, str, str]]:
        """(rule, VM, VM) of pairs in one place that are to be apart."""
        broken = set()
        for rule in self.snapshot.rules.apart:
            places: defaultdict[str, set[str]] = defaultdict(set)
            for name, vms in self.on.items():
                host = self.hosts[name]
                place = host.domain or name if rule.scope is Scope.DOMAIN else name
                places[place] |= {vm.uuid for vm in vms if vm.uuid in rule.vms}
            for members in places.values():
                broken |= {(rule.name, a, b) for a in members for b in members if a < b}
        return broken

    def allows(self, vm: Vm, name: str) -> bool:
        """May it be there at all?"""
        host = self.hosts[name]
        groups = [group for group in self.snapshot.rules.groups if vm.uuid in group.vms]
        return (
            vm.cpu <= host.cpu
            and vm.networks <= host.networks
            and vm.storage <= host.storage
            and vm.machines <= host.machines
            and all((name in group.hosts) is not group.never for group in groups)
        )
