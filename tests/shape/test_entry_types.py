"""What steps hand on to each other, and what two agents ask each other, has types and no string keys (ADR 17)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parsing import parse

SOURCE = Path(__file__).parents[2] / "src" / "sterna"
ENTRIES = frozenset({"results", "plans", "notes", "turned_back"})
"""What a history holds as JSON, under the names of its entries."""
CARRIED = frozenset({"plan", "intent", "outcome", "data", "options"})
"""What an entry and a migration carry, as variables and attributes are called."""
NOT_ENTRIES = ("data", "info.data")
"""A message's data, and what pydantic gives to a validator."""
WRITERS = frozenset({"write", "append", "note", "note_once", "note_change"})
SENDERS = frozenset({"call", "cast"})
BY_NAME = ("domain/step.py", "domain/entries/base.py")
"""The history itself, which finds entries by their names, and the base of the types."""
SHOW_ANY = ("domain/timeline.py", "domain/sequence.py", "controller/records/events.py")
"""They show the reason, the error and the network service of any entry, whatever its type."""
NO_ENTRIES = ("api", "cli", "lab", "sim", "adapters")
"""They know no journal's entries: of the adapters, one stores them."""


def last_name(node: ast.expr) -> str:
    """`plans` of `ctx.history.plans`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_text(node: ast.expr) -> bool:
    """A string, or the name of a constant."""
    constant = isinstance(node, ast.Name) and node.id.isupper()
    return constant or isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str)


def keyed(node: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """Owner and key, where something is looked up by a key."""
    match node:
        case ast.Subscript(value=owner, slice=key):
            return owner, key
        case ast.Call(func=ast.Attribute(value=owner, attr="get" | "pop" | "setdefault"), args=[key, *_]):
            return owner, key
        case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()], comparators=[owner]):
            return owner, key
    return None


def writes_keys(node: ast.AST, functions: frozenset[str]) -> bool:
    """Is a dictionary journaled, or sent?"""
    if not isinstance(node, ast.Call) or last_name(node.func) not in functions:
        return False
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(isinstance(value, ast.Dict) and value.keys for value in given)


def string_keys(text: str) -> Iterator[str]:
    """The expressions that read or write an entry by string keys."""
    for node in ast.walk(parse(text)):
        looked_up = keyed(node)
        if looked_up is not None and is_text(looked_up[1]):
            owner = ast.unparse(looked_up[0])
            name = last_name(looked_up[0])
            if name in ENTRIES or (name in CARRIED and owner not in NOT_ENTRIES):
                yield ast.unparse(node)
        elif writes_keys(node, WRITERS):
            yield ast.unparse(node)


ANY_JSON = re.compile(r"\bData\b|(dict|Mapping)\[str, (Any|object)\]")
AS_IT_IS = frozenset({"image", "properties", "numbers", "external_ids"})
"""Looked up by string in `migration/`: an image's metadata, libvirt's parameters."""


def untyped_messages(text: str) -> Iterator[str]:
    """The expressions that read or write a message by string keys."""
    for node in ast.walk(parse(text)):
        looked_up = keyed(node)
        if looked_up is not None and isinstance(getattr(looked_up[1], "value", None), str):
            compared = isinstance(node, ast.Compare)
            if last_name(looked_up[0]) not in AS_IT_IS and not compared:
                yield ast.unparse(node)
        elif writes_keys(node, SENDERS):
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "line",
    [
        "uri = listening.get('uri')",
        "port = (await ctx.peer.call('expect_stream', params))['port']",
        "await ctx.peer.call('end_lost', {'vm': ctx.vm_uuid})",
        "path = request.params['path']",
    ],
)
def test_messages_without_types_are_found(line: str) -> None:
    assert list(untyped_messages(line))


def functions_of_any_json(text: str) -> Iterator[str]:
    """The functions that take or return JSON whose keys nobody declares."""
    for node in ast.walk(parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            annotations = [argument.annotation for argument in arguments] + [node.returns]
            told = " ".join(ast.unparse(annotation) for annotation in annotations if annotation is not None)
            if ANY_JSON.search(told):
                yield node.name


@pytest.mark.parametrize(
    "line",
    [
        "async def do(self, ctx: Context, plan: Data) -> Done: pass",
        "async def plan(self, ctx: Context) -> dict[str, Any]: pass",
        "def tell(told: Mapping[str, object] | None) -> None: pass",
    ],
)
def test_functions_of_any_json_are_found(line: str) -> None:
    assert list(functions_of_any_json(line))


def test_no_step_and_nothing_beside_the_steps_takes_or_returns_any_json() -> None:
    files = [path for half in ("source", "destination") for path in (SOURCE / "migration" / half).rglob("*.py")]
    found = {path.name: names for path in files if (names := list(functions_of_any_json(path.read_text("utf-8"))))}
    assert found == {}


def test_the_halves_of_a_migration_ask_each_other_by_types() -> None:
    agent = SOURCE / "agent"
    files = [
        *(SOURCE / "migration").rglob("*.py"),
        *(agent / name for name in ("answers.py", "destination.py", "incoming_halves.py")),
    ]
    found = {path.name: keys for path in files if (keys := list(untyped_messages(path.read_text("utf-8"))))}
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "vm = ctx.history.results['snapshot-volumes']['vm']",
        "taps = ctx.history.plans.get('plug-vifs', {}).get('taps', ())",
        "if 'copy-started' in ctx.history.notes: pass",
        "if STARTED not in history.notes: pass",
        "if f'saw-{event}' in notes: pass",
        "paths = plan['paths']",
        "error = ctx.history.turned_back['error']",
        "why = entry.data.get('why')",
        "ctx.note('M4', 'libvirt-said', {'error': error.to_wire()})",
        "journal.append(id, Kind.NOTE, row='M3', name='tuned', data={'bandwidth': 1})",
        "ctx.write(Kind.DONE, name=step.name, data={'removed': ()})",
        "if ctx.migration.options.get(REHEARSE): pass",
        "claimed = migration.options['memory_bytes']",
        "if 'requester' in options: pass",
    ],
)
def test_string_keys_are_found(line: str) -> None:
    assert list(string_keys(line))


@pytest.mark.parametrize(
    "line",
    [
        "vm = ctx.history.get(Snapshot).vm",
        "if ctx.history.has(CopyStarted): pass",
        "if step.name in history.results: pass",
        "ctx.write(Kind.STATUS, name=status, data=StatusSet(status=status, reason=why).to_data())",
        "host = data['host']",
    ],
)
def test_types_are_no_string_keys(line: str) -> None:
    assert not list(string_keys(line))


def test_nobody_reads_or_writes_an_entry_by_string_keys() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name.startswith(NO_ENTRIES) or name in BY_NAME + SHOW_ANY:
            continue
        if keys := list(string_keys(path.read_text(encoding="utf-8"))):
            found[name] = keys
    assert found == {}


ANY_KEYS = {
    "Entry.data": "of each kind of entry another type, which `domain/entries/` reads",
    "DestinationReport.migration": "what the other host accepted, shown to people only",
    "ImageRead.image": "Glance's metadata, as the image's owner wrote it",
    "Vm.image": "the same, in the domain's metadata",
    "Binding.vif_details": "what a Neutron mechanism driver says",
    "Binding.profile": "what Neutron keeps for others as well",
    "Item.data": "of any entry, to be shown",
    "Item.error": "of any class of error, to be shown",
}
"""The fields of `domain/` whose keys nobody declares, each with its reason."""


def fields_of_any_json(text: str) -> Iterator[str]:
    """The fields of values whose keys nobody declares: where they are read, strings would be the only way."""
    for owner in ast.walk(parse(text)):
        bases = {ast.unparse(base) for base in owner.bases} if isinstance(owner, ast.ClassDef) else set()
        if isinstance(owner, ast.ClassDef) and bases:
            for field in owner.body:
                if isinstance(field, ast.AnnAssign) and ANY_JSON.search(ast.unparse(field.annotation)):
                    yield f"{owner.name}.{ast.unparse(field.target)}"


def test_a_field_of_any_json_is_found() -> None:
    text = "class Migration(Value):\n    id: str\n    options: Data = {}\n    more: dict[str, Any] | None = None\n"
    assert list(fields_of_any_json(text)) == ["Migration.options", "Migration.more"]


def test_values_declare_their_keys() -> None:
    files = sorted((SOURCE / "domain").rglob("*.py"))
    found = {field for path in files for field in fields_of_any_json(path.read_text(encoding="utf-8"))}
    assert found == set(ANY_KEYS)
