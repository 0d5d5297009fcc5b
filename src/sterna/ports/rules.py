"""The controller's records of placement rules. No agent knows of them, so they cannot be made again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from sterna.domain.fleet.rule_checks import Placed, RuleFacts
from sterna.domain.fleet.rules import Rule


class RuleRecords(Protocol):
    """Rules. Every method is one transaction and raises as `ports.fleet.Fleet` does."""

    async def rules(self) -> list[Rule]:
        """All of them, in the order of their names as bytes."""

    async def rule(self, name: str) -> Rule:
        """Raises NotFound."""

    async def put_rule(self, rule: Rule, *, replace: bool) -> tuple[Rule, bool]:
        """The rule as it is now, and whether it was created. One that orders the same already is left as it is.

        Raises Conflict where it contradicts another one, or, without `replace`, where the name is taken.
        """

    async def remove_rule(self, name: str) -> Rule:
        """Raises NotFound."""

    async def rule_facts(self, uuid: str, name: str) -> RuleFacts:
        """What the rules about this VM need to be judged by."""

    async def placed(self, named: Collection[str]) -> list[Placed]:
        """All VMs with one of these names or UUIDs."""
