"""Placement rules: list, show, write and remove them, each with what is wrong with it now.

A rule may name VMs and hosts that there are not: it is kept, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import structlog

from sterna.controller.records.registry import Registry
from sterna.domain.fleet.rule_checks import Placed, problems
from sterna.domain.fleet.rules import Rule, RuleKind, well_formed
from sterna.domain.model import Value
from sterna.ports.clock import Clock
from sterna.ports.fleet import Fleet

log = structlog.get_logger(__name__)


class RuleView(Value):
    """A rule, and what is wrong with it."""

    rule: Rule
    problems: tuple[str, ...] = ()
    """Sentences that are true now: names that nothing has, and how the rule is broken."""


class RulePage(Value):
    """Which rules to list, by name."""

    after: str = ""
    """Only those behind this name."""
    limit: int = 50
    kinds: tuple[RuleKind, ...] = ()
    vm: str = ""
    """Only those about this VM, by name or UUID."""
    host: str = ""


class PlacementRules:
    """The intents about them."""

    def __init__(self, fleet: Fleet, registry: Registry, clock: Clock, wake: Callable[[], None]) -> None:
        """`wake`: has operations planned again."""
        self._fleet, self._registry, self._clock, self._wake = fleet, registry, clock, wake

    async def page(self, page: RulePage) -> list[RuleView]:
        """By name. Raises Unreachable."""
        every = await self._fleet.rules()
        named = await self._names_of(page.vm) if page.vm else set[str]()
        found = [
            rule
            for rule in every
            if rule.name > page.after
            and (not page.kinds or rule.kind in page.kinds)
            and (not page.vm or named & set(rule.vms))
            and (not page.host or page.host in rule.hosts)
        ]
        return await self._views(found[: page.limit], every)

    async def show(self, name: str) -> RuleView:
        """Raises NotFound."""
        (view,) = await self._views([await self._fleet.rule(name)], await self._fleet.rules())
        return view

    async def put(self, rule: Rule, by: str, *, replace: bool) -> tuple[RuleView, bool]:
        """The rule as it is now, and whether it was created. May be repeated.

        Raises BadRequest for a rule that makes no sense; Conflict where it contradicts another one, or, without
        `replace`, where the name is taken.
        """
        at = self._clock.now().isoformat()
        new = well_formed(rule).model_copy(update={"changed_by": by, "changed_at": at})
        kept, created = await self._fleet.put_rule(new, replace=replace)
        log.info("a placement rule was written", rule=kept.name, kind=kept.kind, by=by, created=created)
        self._wake()
        (view,) = await self._views([kept], await self._fleet.rules())
        return view, created

    async def remove(self, name: str, by: str) -> Rule:
        """Raises NotFound."""
        removed = await self._fleet.remove_rule(name)
        log.info("a placement rule was removed", rule=name, kind=removed.kind, by=by)
        self._wake()
        return removed

    async def _names_of(self, vm: str) -> set[str]:
        """All that a rule may call it."""
        found = await self._fleet.vms_called(vm)
        return {vm, vm.lower()} | {name for one in found for name in (one.uuid, one.name)}

    async def _views(self, rules: Sequence[Rule], every: Collection[Rule]) -> list[RuleView]:
        called: dict[str, list[Placed]] = {}
        for one in await self._fleet.placed({vm for rule in rules for vm in rule.vms}):
            for name in {one.uuid, one.name}:
                called.setdefault(name, []).append(one)
        hosts = {host.name for host in await self._registry.hosts()}
        domains = {host: rule.name for rule in every if rule.kind is RuleKind.FAILURE_DOMAIN for host in rule.hosts}
        views = []
        for rule in rules:
            named = {one.uuid: one for vm in rule.vms for one in called.get(vm, ())}
            views.append(RuleView(rule=rule, problems=tuple(problems(rule, list(named.values()), hosts, domains))))
        return views
