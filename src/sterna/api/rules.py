"""`/v1/rules`: where VMs may be, and which hosts are not to be down together."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Cursor, Limit, Served, cursor_of, place_of
from sterna.api.problems import documented
from sterna.controller.intents.placement_rules import RulePage, RuleView
from sterna.domain.access import Action
from sterna.domain.fleet.rules import HIGHEST, MOST_MEMBERS, NAME, Rule, RuleKind
from sterna.domain.fleet.snapshot import Scope
from sterna.domain.plain_text import printable

router = APIRouter(prefix="/v1", tags=["rules"])
_READ = [needs(Action.READ)]
_WRITE = [needs(Action.RULES)]
RuleName = Annotated[str, Path(max_length=63, description="The rule's name.")]
NewName = Annotated[str, Path(pattern=NAME, description="The rule's name.")]
Member = Annotated[str, Field(min_length=1, max_length=255)]


class RuleIn(BaseModel):
    """A placement rule."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"kind": "apart", "vms": ["web1", "web2"]}]}
    )
    kind: RuleKind = Field(
        description="`apart`: no two of these VMs in one place. `together`: all of these VMs on one host. "
        "`only-on`, "
        "`never-on`: only on these hosts, or on none of them. `never-move`: they are not migrated. `priority`: VMs "
        "with higher numbers are placed and migrated first. `not-down-together`: operations close one of these "
        "hosts "
        "at a time. `failure-domain`: these hosts fail together; the rule's name is the name of the domain."
    )
    vms: list[Member] = Field(
        default_factory=list,
        max_length=MOST_MEMBERS,
        description="Names or UUIDs. A name means every VM that has it. The VMs need not exist yet.",
    )
    hosts: list[Member] = Field(default_factory=list, max_length=MOST_MEMBERS, description="Names of the hosts.")
    scope: Scope | None = Field(
        default=None,
        description="For `apart`: what counts as one place. Null: `host`. A host without a failure domain is its "
        "own.",
    )
    priority: int | None = Field(
        default=None, strict=True, ge=-HIGHEST, le=HIGHEST, description="For `priority`. VMs without a rule have 0."
    )
    reason: str = Field(default="", max_length=255, description="Reason, shown with the rule.")

    def named(self, name: str) -> Rule:
        """As the intent takes it."""
        return Rule(
            name=name,
            kind=self.kind,
            vms=tuple(printable(vm) for vm in self.vms),
            hosts=tuple(printable(host) for host in self.hosts),
            scope=self.scope,
            priority=self.priority,
            reason=printable(self.reason),
        )


class NewRuleIn(RuleIn):
    """A placement rule with its name."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "web", "kind": "apart", "vms": ["web1", "web2"]}]}
    )
    name: str = Field(pattern=NAME)


class RuleOut(BaseModel):
    """One placement rule."""

    name: str = Field(examples=["web"])
    kind: RuleKind
    vms: list[str] = Field(description="Names or UUIDs, as given.")
    hosts: list[str]
    scope: Scope | None = Field(description="For `apart`; null for other kinds.")
    priority: int | None = Field(description="For `priority`; null for other kinds.")
    reason: str
    changed_by: str = Field(description="Who changed it last.", examples=["token:ops"])
    changed_at: str = Field(description="ISO 8601 UTC.")
    problems: list[str] = Field(
        description="Current problems: names that no VM or host has, and violations.",
        examples=[["there is no VM web3", "it is broken: web1, web2 are on host1"]],
    )

    @classmethod
    def of(cls, view: RuleView) -> RuleOut:
        """From the controller's view."""
        return cls(**view.rule.model_dump(), problems=list(view.problems))


class RulesOut(BaseModel):
    """A page of placement rules."""

    rules: list[RuleOut]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page.")


@router.get("/rules", summary="List placement rules", dependencies=_READ, responses=documented(400, 422))
async def list_rules(
    controller: Served,
    kind: Annotated[list[RuleKind] | None, Query(description="Any of these.")] = None,
    vm: Annotated[str, Query(max_length=255, description="Only rules for this VM (name or UUID).")] = "",
    host: Annotated[str, Query(max_length=255, description="Only rules that name this host.")] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> RulesOut:
    """Sorted by name."""
    after = place_of(cursor, 1)[0] if cursor is not None else ""
    page = RulePage(after=after, limit=limit + 1, kinds=tuple(kind or ()), vm=vm, host=host)
    found = await controller.rules.page(page)
    more = cursor_of(found[limit - 1].rule.name) if len(found) > limit else None
    return RulesOut(rules=[RuleOut.of(one) for one in found[:limit]], next_cursor=more)


@router.post("/rules", status_code=201, summary="Create a placement rule", dependencies=_WRITE,
             responses={200: {"model": RuleOut, "description": "The same rule already exists"},
                        **documented(400, 409, 422)})  # fmt: skip
async def create_rule(wanted: NewRuleIn, controller: Served, asking: Request, response: Response) -> RuleOut:
    """It applies to migrations and operations from now on, and moves no VM by itself. 400 for a rule that is not
    valid. 409 if another rule has the name, or contradicts it."""
    return await _put(wanted.named(wanted.name), controller, asking, response, replace=False)


@router.get("/rules/{name}", summary="Show a placement rule", dependencies=_READ, responses=documented(404))
async def show_rule(name: RuleName, controller: Served) -> RuleOut:
    """A rule with its current problems."""
    return RuleOut.of(await controller.rules.show(name))


@router.put("/rules/{name}", summary="Create or replace a placement rule", dependencies=_WRITE,
            responses={201: {"model": RuleOut, "description": "Created"},
                       **documented(400, 409, 422)})  # fmt: skip
async def put_rule(
    name: NewName, wanted: RuleIn, controller: Served, asking: Request, response: Response
) -> RuleOut:
    """Idempotent. 400 for a rule that is not valid. 409 if another rule contradicts it."""
    return await _put(wanted.named(name), controller, asking, response, replace=True)


@router.delete("/rules/{name}", summary="Remove a placement rule", dependencies=_WRITE, responses=documented(404))
async def remove_rule(name: RuleName, controller: Served, asking: Request) -> RuleOut:
    """It no longer applies."""
    return RuleOut.of(RuleView(rule=await controller.rules.remove(name, actor_of(asking).name)))


async def _put(rule: Rule, controller: Served, asking: Request, response: Response, *, replace: bool) -> RuleOut:
    view, created = await controller.rules.put(rule, actor_of(asking).name, replace=replace)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"/v1/rules/{view.rule.name}"
    return RuleOut.of(view)
