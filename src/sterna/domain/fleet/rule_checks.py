"""What placement rules have against one migration, and what is wrong with a rule now.

The planner judges many VMs on its board (`board.py`). This is the same for one VM, from its rules and the places of
the VMs that they name, so that a request need not read the whole fleet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from sterna.domain.fleet.rules import Resolved, Rule, RuleKind, VmNames, resolve
from sterna.domain.fleet.snapshot import Apart, Scope
from sterna.domain.model import Refusal, Value

MOST_SHOWN = 5
"""Names in one sentence."""


class Placed(Value):
    """A VM and where it counts."""

    uuid: str
    name: str
    host: str
    to: tuple[str, ...] = ()
    """Where it is being moved."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """All of them."""
        return (self.host, *self.to)


class RuleFacts(Value):
    """The rules about a VM, with all failure domains, and the places of the VMs that they name."""

    rules: tuple[Rule, ...] = ()
    placed: tuple[Placed, ...] = ()
    closed: frozenset[str] = frozenset()
    """Hosts in maintenance."""

    def judge(self, vm: Placed, up: Collection[str]) -> Judge:
        """For the VM. `up`: hosts that can be used."""
        names = VmNames((one.uuid, one.name) for one in (*self.placed, vm))
        away = {host for one in self.placed for host in one.hosts if host in self.closed or host not in up}
        return Judge(resolve(self.rules, names), self.placed, vm, away)


class Judge:
    """What the rules have against each host, for one VM."""

    def __init__(
        self, resolved: Resolved, placed: Iterable[Placed], vm: Placed, away: Collection[str] = ()
    ) -> None:
        """`away`: hosts that take no VMs now. Nobody has to be with VMs that are on one of them: they are about to
        leave, or cannot be joined."""
        rules, self._vm, self._domain_of = resolved.rules, vm, resolved.domain_of
        others = {one.uuid: one for one in placed if one.uuid != vm.uuid}
        self._never = rules.never_move.get(vm.uuid)
        self._groups = [group for group in rules.groups if vm.uuid in group.vms]
        self._taken: list[tuple[Apart, dict[str, tuple[Placed, str]]]] = []
        """Of each rule that keeps VMs apart: the places that are taken, by which VM and on which host."""
        for apart in (one for one in rules.apart if vm.uuid in one.vms):
            near = [(others[uuid], at) for uuid in sorted(apart.vms & others.keys()) for at in others[uuid].hosts]
            places = {self._place(apart.scope, at): (other, at) for other, at in reversed(near)}
            self._taken.append((apart, places))
        self._mates = [
            (rule.name, others[uuid], at)
            for rule in rules.together
            if vm.uuid in rule.vms
            for uuid in sorted(rule.vms & others.keys())
            for at in others[uuid].hosts
            if at not in away
        ]
        self._must = {at for *_, at in self._mates}

    def _place(self, scope: Scope, host: str) -> str:
        """A host of no failure domain is one by itself; no name of a domain has a slash."""
        domain = self._domain_of.get(host, "") if scope is Scope.DOMAIN else ""
        return domain or f"host/{host}"

    def against(self, target: str) -> list[Refusal]:
        """What speaks against moving the VM there: one reason for each rule."""
        vm, found = self._vm, list[Refusal]()
        if self._never is not None:
            message = f"a rule keeps {vm.name} on {vm.host}: {self._never}"
            found.append(Refusal(code="vm-never-moves", message=message))
        for group in self._groups:
            if (target in group.hosts) is group.never:
                what = f"keeps {vm.name} off {target}" if group.never else _only_on(vm, group.hosts)
                found.append(_refusal(group.name, what))
        for apart, places in self._taken:
            if (taken := places.get(self._place(apart.scope, target))) is not None:
                other, at = taken
                found.append(_refusal(apart.name, f"keeps {vm.name} apart from {other.name}, {_at(other, at)}"))
        if self._must and target not in self._must:
            name, mate, at = self._mates[0]
            found.append(_refusal(name, f"keeps {vm.name} with {mate.name}, {_at(mate, at)}"))
        return found


def _at(vm: Placed, host: str) -> str:
    return f"which is on {host}" if host == vm.host else f"which is being moved to {host}"


def _only_on(vm: Placed, hosts: Collection[str]) -> str:
    return f"allows {vm.name} on these hosts only: {some(sorted(hosts))}"


def _refusal(rule: str, what: str) -> Refusal:
    return Refusal(code="placement-rule", message=f"the rule {rule} {what}")


def some(names: Sequence[str]) -> str:
    """A few of them."""
    more = len(names) - MOST_SHOWN
    return ", ".join(names[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


# ---------------------------------------------------------------- hosts that are not to be down together


def away_of(closed: Mapping[str, bool], up: Collection[str]) -> dict[str, str]:
    """The hosts that are closed or down, and in which way. `closed`: of each host, whether it is in maintenance."""
    words = {name: "is in maintenance" if shut else "cannot be used" for name, shut in closed.items()}
    return {name: word for name, word in words.items() if closed[name] or name not in up}


def down_together(rules: Iterable[Rule], closing: Collection[str], away: Mapping[str, str]) -> list[Refusal]:
    """What speaks against closing these hosts. `away`: hosts that are closed or down already, and in which way."""
    found = []
    for rule in rules:
        named = sorted({*rule.hosts} & {*closing})
        if rule.kind is not RuleKind.NOT_DOWN_TOGETHER or not named:
            continue
        others = sorted({*rule.hosts} & away.keys() - {*closing})
        if len(named) > 1 or others:
            why = "".join(f"; {other} {away[other]}" for other in others[:MOST_SHOWN])
            message = f"the rule {rule.name} keeps {some([*named, *others])} from being down together{why}"
            found.append(Refusal(code="hosts-down-together", message=message))
    return found


# ---------------------------------------------------------------- what is wrong with a rule


def problems(
    rule: Rule, placed: Sequence[Placed], hosts: Collection[str], domain_of: Mapping[str, str]
) -> list[str]:
    """Sentences that are true now. `placed`: all VMs that the rule names. `hosts`: all there are."""
    names = VmNames((one.uuid, one.name) for one in placed)
    found = [f"there is no host {host}" for host in rule.hosts if host not in hosts]
    for named in rule.vms:
        number = len(names.of(named))
        if not number:
            found.append(f"there is no VM {named}")
        elif number > 1:
            found.append(f"{named} is the name of {number} VMs: the rule is about all of them")
    alone = sorted({one.host for one in placed} - domain_of.keys()) if rule.scope is Scope.DOMAIN else []
    if alone:
        found.append(f"in no failure domain, and one each: {some(alone)}")
    return found + list(_broken(rule, sorted(placed, key=lambda one: (one.name, one.uuid)), domain_of))


def _broken(rule: Rule, placed: Sequence[Placed], domain_of: Mapping[str, str]) -> Iterator[str]:
    """How it is broken now."""
    if rule.kind is RuleKind.TOGETHER and len({one.host for one in placed}) > 1:
        yield "it is broken: " + some([f"{one.name} is on {one.host}" for one in placed])
    if rule.kind in (RuleKind.ONLY_ON, RuleKind.NEVER_ON):
        for one in placed:
            if (one.host in rule.hosts) is (rule.kind is RuleKind.NEVER_ON):
                yield f"it is broken: {one.name} is on {one.host}"
    if rule.kind is RuleKind.APART:
        at: dict[str, list[Placed]] = {}
        for one in placed:
            domain = domain_of.get(one.host, "") if rule.scope is Scope.DOMAIN else ""
            at.setdefault(f"in the failure domain {domain}" if domain else f"on {one.host}", []).append(one)
        for where, near in at.items():
            if len(near) > 1:
                yield f"it is broken: {some([one.name for one in near])} are {where}"
