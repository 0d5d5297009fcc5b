"""Placement rules as operators write them, and what the planner makes of them.

A rule names VMs by name or UUID, and hosts by name. Nothing that it names has to exist: a rule may be written
before its VMs are created, and outlives them. A name stands for every VM that has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum

from sterna.domain.errors import BadRequest, Conflict
from sterna.domain.fleet.snapshot import Apart, HostGroup, Rules, Scope, Together
from sterna.domain.model import Value
from sterna.domain.texts import is_uuid

NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$"
"""Of a rule."""
MOST_MEMBERS = 1000
"""VMs, or hosts, of one rule."""
HIGHEST = 1000
"""Priority; the lowest is its negative."""


class RuleKind(StrEnum):
    """Kind of placement rule."""

    APART = "apart"
    """Anti-affinity: no two of its VMs in one place (`Rule.scope`)."""
    TOGETHER = "together"
    """Affinity: its VMs on one host."""
    ONLY_ON = "only-on"
    """Its VMs run on its hosts only."""
    NEVER_ON = "never-on"
    """Its VMs run on any host but these."""
    NEVER_MOVE = "never-move"
    """Its VMs stay where they are."""
    PRIORITY = "priority"
    """Of its VMs: the highest are placed and moved first."""
    NOT_DOWN_TOGETHER = "not-down-together"
    """Of its hosts, operations empty one at a time."""
    FAILURE_DOMAIN = "failure-domain"
    """Its hosts fail together, like those of a rack. The rule's name is the domain's."""


class Rule(Value):
    """One rule."""

    name: str
    kind: RuleKind
    vms: tuple[str, ...] = ()
    """Names or UUIDs."""
    hosts: tuple[str, ...] = ()
    scope: Scope | None = None
    """Of `apart` only."""
    priority: int | None = None
    """Of `priority` only."""
    reason: str = ""
    """The operator's own words."""
    changed_by: str = ""
    changed_at: str = ""
    """ISO 8601 UTC, the controller's clock."""

    def orders_the_same(self, other: Rule) -> bool:
        """Is it the same rule, whoever wrote it when?"""
        unlike = {"changed_by", "changed_at"}
        return self.model_dump(exclude=unlike) == other.model_dump(exclude=unlike)

    def names(self, uuid: str, name: str) -> bool:
        """Is it about this VM?"""
        return uuid in self.vms or name in self.vms


_LEAST: dict[RuleKind, tuple[int, int]] = {
    RuleKind.APART: (2, 0),
    RuleKind.TOGETHER: (2, 0),
    RuleKind.ONLY_ON: (1, 1),
    RuleKind.NEVER_ON: (1, 1),
    RuleKind.NEVER_MOVE: (1, 0),
    RuleKind.PRIORITY: (1, 0),
    RuleKind.NOT_DOWN_TOGETHER: (0, 2),
    RuleKind.FAILURE_DOMAIN: (0, 1),
}
"""How many VMs and hosts a rule names at least; 0: none."""


_NOT_OF_PLACES = frozenset({RuleKind.PRIORITY, RuleKind.NOT_DOWN_TOGETHER})


def orders(rules: Iterable[Rule]) -> str:
    """What rules order about where VMs may be. Where that differs, a decision made by them may not hold now."""
    unlike = {"name", "reason", "changed_by", "changed_at"}
    return "\n".join(sorted(one.model_dump_json(exclude=unlike) for one in rules if one.kind not in _NOT_OF_PLACES))


def well_formed(rule: Rule) -> Rule:
    """The rule with each name once, UUIDs in lower case, and its scope. Raises BadRequest for one that makes no
    sense."""
    vms, hosts = tuple(sorted({_plain(vm) for vm in rule.vms})), tuple(sorted(set(rule.hosts)))
    for what, named, least in zip(("VM", "host"), (vms, hosts), _LEAST[rule.kind], strict=True):
        _check_number(rule.kind, what, len(named), least)
    if rule.scope is not None and rule.kind is not RuleKind.APART:
        raise BadRequest(f"a rule of the kind {rule.kind} has no scope", fix="leave out the scope")
    if rule.priority is not None and rule.kind is not RuleKind.PRIORITY:
        raise BadRequest(f"a rule of the kind {rule.kind} has no priority", fix="write a rule of the kind priority")
    if rule.priority is None and rule.kind is RuleKind.PRIORITY:
        raise BadRequest("the priority is missing", fix=f"give a number from -{HIGHEST} to {HIGHEST}")
    scope = (rule.scope or Scope.HOST) if rule.kind is RuleKind.APART else None
    return rule.model_copy(update={"vms": vms, "hosts": hosts, "scope": scope})


def _check_number(kind: RuleKind, what: str, number: int, least: int) -> None:
    if not least and number:
        raise BadRequest(f"a rule of the kind {kind} names no {what}s", fix=f"leave out its {what}s")
    if number < least:
        plural = "s" if least > 1 else ""
        raise BadRequest(
            f"a rule of the kind {kind} names at least {least} {what}{plural}; this one names {number}",
            fix=f"name {least} or more",
        )


def _plain(vm: str) -> str:
    """A UUID as libvirt writes it; anything else is a name."""
    return vm.lower() if is_uuid(vm) else vm


def refuse_contradiction(new: Rule, others: Iterable[Rule], names: VmNames | None = None) -> None:
    """Raises Conflict where rules cannot hold together: VMs apart and together, a VM that is left no host, or a
    host in two failure domains. `names`: the VMs that the new rule is about."""
    names = names or VmNames(())
    opposite = {RuleKind.APART: RuleKind.TOGETHER, RuleKind.TOGETHER: RuleKind.APART}.get(new.kind)
    others = [other for other in others if other.name != new.name]
    for other in others:
        hosts = sorted({*new.hosts} & {*other.hosts})
        if other.kind is opposite and len(vms := sorted(_members(new, names) & _members(other, names))) > 1:
            word = "apart" if other.kind is RuleKind.APART else "together"
            raise _contradicts(other, f"keeps {names.name(vms[0])} and {names.name(vms[1])} {word}")
        if new.kind is other.kind is RuleKind.FAILURE_DOMAIN and hosts:
            raise _contradicts(other, f"has {', '.join(hosts[:3])} in another failure domain")
    if new.kind in _OF_HOSTS:
        _refuse_no_host(new, [other for other in others if other.kind in _OF_HOSTS], names)


_OF_HOSTS = frozenset({RuleKind.ONLY_ON, RuleKind.NEVER_ON})


def _members(rule: Rule, names: VmNames) -> set[str]:
    """UUIDs of its VMs, and the names and UUIDs that no VM has yet."""
    return {*names.all_of(rule.vms), *(one for one in rule.vms if not names.of(one))}


def _refuse_no_host(new: Rule, others: Sequence[Rule], names: VmNames) -> None:
    """Raises Conflict where the new rule takes the last host from a VM. Where others have done so, it makes nothing
    worse."""
    about = [(other, _members(other, names)) for other in others]
    for vm in sorted(_members(new, names)):
        near = [other for other, members in about if vm in members]
        before, after = _allowed(near), _allowed([*near, new])
        if after or after is None or (before is not None and not before):
            continue
        alone = next((other for other in near if not _allowed([other, new]) and _limits(other, new)), None)
        if alone is not None:
            word, end = ("allows", " only") if alone.kind is RuleKind.ONLY_ON else ("forbids", "")
            raise _contradicts(
                alone, f"{word} {names.name(vm)} on {_some(alone.hosts)}{end}: with this one, it would have no host"
            )
        said = ", ".join(other.name for other in near)
        what = f"the rules {said} would leave {names.name(vm)} no host together with this one"
        raise Conflict(what, fix=f"change one of them first: `sterna rules show {near[0].name}`")


def _limits(one: Rule, other: Rule) -> bool:
    return RuleKind.ONLY_ON in (one.kind, other.kind)


def _some(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")


def _allowed(rules: Iterable[Rule]) -> set[str] | None:
    """Hosts that these rules of one VM leave it; None: all that no rule forbids."""
    allowed: set[str] | None = None
    never: set[str] = set()
    for rule in rules:
        if rule.kind is RuleKind.NEVER_ON:
            never.update(rule.hosts)
        else:
            allowed = {*rule.hosts} if allowed is None else allowed & {*rule.hosts}
    return None if allowed is None else allowed - never


def _contradicts(other: Rule, what: str) -> Conflict:
    fix = f"change that one first: `sterna rules show {other.name}`, `sterna rules remove {other.name}`"
    return Conflict(f"the rule {other.name} {what}", fix=fix)


class Resolved(Value):
    """Rules in the planner's words."""

    rules: Rules = Rules()
    priority_of: dict[str, int] = {}
    """UUID -> the highest that a rule gives it."""
    domain_of: dict[str, str] = {}
    """Host -> its failure domain."""


class VmNames:
    """Which VMs a name or UUID stands for."""

    def __init__(self, vms: Iterable[tuple[str, str]]) -> None:
        """`vms`: UUID and name of each VM there is."""
        self._uuids: set[str] = set()
        self._by_name: dict[str, list[str]] = {}
        self._name_of: dict[str, str] = {}
        for uuid, name in vms:
            self._uuids.add(uuid)
            self._name_of[uuid] = name
            self._by_name.setdefault(name, []).append(uuid)

    def of(self, name_or_uuid: str) -> list[str]:
        """UUIDs; none where there is no such VM."""
        return [name_or_uuid] if name_or_uuid in self._uuids else self._by_name.get(name_or_uuid, [])

    def name(self, name_or_uuid: str) -> str:
        """The VM's name; what was given where there is no VM of this UUID."""
        return self._name_of.get(name_or_uuid, name_or_uuid)

    def all_of(self, named: Collection[str]) -> frozenset[str]:
        """UUIDs of all of these."""
        return frozenset(uuid for one in named for uuid in self.of(one))


def resolve(rules: Iterable[Rule], vms: VmNames) -> Resolved:
    """What the rules mean for the VMs that there are."""
    apart: list[Apart] = []
    together: list[Together] = []
    groups: list[HostGroup] = []
    never_move: dict[str, str] = {}
    not_down: list[frozenset[str]] = []
    priority_of: dict[str, int] = {}
    domain_of: dict[str, str] = {}
    for rule in rules:
        members, hosts = vms.all_of(rule.vms), frozenset(rule.hosts)
        match rule.kind:
            case RuleKind.APART if len(members) > 1:
                apart.append(Apart(name=rule.name, vms=members, scope=rule.scope or Scope.HOST))
            case RuleKind.TOGETHER if len(members) > 1:
                together.append(Together(name=rule.name, vms=members))
            case RuleKind.ONLY_ON | RuleKind.NEVER_ON if members:
                never = rule.kind is RuleKind.NEVER_ON
                groups.append(HostGroup(name=rule.name, vms=members, hosts=hosts, never=never))
            case RuleKind.NEVER_MOVE:
                why = f"{rule.name} ({rule.reason})" if rule.reason else rule.name
                never_move = dict.fromkeys(sorted(members), why) | never_move
            case RuleKind.PRIORITY if rule.priority is not None:
                given = rule.priority
                priority_of |= {uuid: max(given, priority_of.get(uuid, given)) for uuid in members}
            case RuleKind.NOT_DOWN_TOGETHER:
                not_down.append(hosts)
            case RuleKind.FAILURE_DOMAIN:
                domain_of |= dict.fromkeys(rule.hosts, rule.name)
            case _:
                pass
    made = Rules(
        apart=tuple(apart),
        together=tuple(together),
        groups=tuple(groups),
        never_move=never_move,
        not_down_together=tuple(not_down),
    )
    return Resolved(rules=made, priority_of=priority_of, domain_of=domain_of)
