"""Writes the tables of docs/reference/definitions.md: `python -m tests.unit.schema_page`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from sterna.domain.references import Kind
from tests.e2e.definitions import CASES as PLAYED
from tests.unit.domain.reference_cases import CASES
from tests.unit.schema_rules import RULES, Verdict

PAGE = Path(__file__).parents[2] / "docs/reference/definitions.md"
KINDS = {
    Kind.ADDRESS: ("An address, and perhaps a port, at which QEMU listens", "the address, the port free"),
    Kind.PEER: ("Where QEMU connects to by TCP when it starts", "somebody who answers"),
    Kind.SOCKET: ("A socket that QEMU or libvirt makes", "its folder; no running VM that has the path"),
    Kind.SERVER: ("A socket that QEMU connects to when it starts", "a program that listens there"),
    Kind.OUTPUT: ("A file that is written: log, serial port, NVRAM", "its folder; no running VM that has the path"),
    Kind.FILE: ("A file whose content the guest is given", "the file, with the same content"),
    Kind.FIRMWARE: ("A firmware or option ROM", "the file, with the same size"),
    Kind.PRESENT: ("A file whose content is the host's own business", "the file"),
    Kind.DEVICE: ("A device or named pipe", "the device"),
    Kind.ARGUMENT: (
        "An absolute path in QEMU's own arguments",
        "the same file, device or folder, or its folder; of a file that QEMU writes, proof that it is the same",
    ),
    Kind.NETWORK: ("A network of libvirt", "the network, started"),
    Kind.FILTER: ("A network filter of libvirt", "the filter"),
    Kind.SECRET: ("The secret of a TPM's state", "nothing: it is brought, as a disk's is"),
    Kind.CPUS: ("CPUs that the VM is bound to", "all of them, online"),
    Kind.NODES: ("NUMA nodes that its memory is bound to", "all of them"),
    Kind.PAGES: ("Huge pages, by size and NUMA node", "as many free ones, and hugetlbfs for their size"),
    Kind.CID: ("A vsock address that was chosen by hand", "no running VM that has it"),
    Kind.SECURITY: ("A security driver", "that driver in libvirt"),
    Kind.CACHE: ("Allocation of CPU cache or memory bandwidth", "resctrl"),
}
"""What is named, and what the destination must have."""
BROUGHT = dict.fromkeys(("secret-not-carried", "secret-conflict", "secret-without-value"))
"""Of secrets, which `domain/secrets.py` judges."""


def kinds() -> str:
    """One line for each kind; its codes are those that the cases of `test_resource_checks.py` end with."""
    lines = ["| Kind | What is named | What the destination must have | Code |", "|---|---|---|---|"]
    for kind, (named, needed) in KINDS.items():
        codes = dict.fromkeys(code for ref, _, code in CASES if ref.kind is kind and code) or BROUGHT
        lines.append(f"| {kind} | {named} | {needed} | {', '.join(f'`{code}`' for code in codes)} |")
    return "\n".join(lines)


def places() -> str:
    """One line for each class of places."""
    found: dict[tuple[Verdict, str], list[str]] = {}
    for rule in RULES:
        found.setdefault((rule.verdict, rule.by), []).append(f"`{rule.pattern}`")
    lines = ["| | Checked by, or why harmless | Places |", "|---|---|---|"]
    for verdict in Verdict:
        for (each, by), patterns in found.items():
            if each is verdict:
                who = f"kind {by}" if by in set(Kind) else by
                lines.append(f"| {verdict} | {who} | {' '.join(patterns)} |")
    return "\n".join(lines)


def played() -> str:
    """One line for each VM of `tests/e2e/test_definitions.py`."""
    lines = ["| VM | Sterna | `virsh migrate` of the same VM |", "|---|---|---|"]
    for case in PLAYED:
        by_virsh = not case.code if case.virsh is None else case.virsh
        how = f"refused: `{case.code}`" if case.code else "moved, translated" if case.shows[0] else "moved"
        lines.append(f"| {case.name} | {how} | {'moved' if by_virsh else 'refused'} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with its tables."""
    for name, table in (("kinds", kinds()), ("places", places()), ("played", played())):
        between = rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)"
        page = re.sub(between, partial(_filled, table), page, flags=re.DOTALL)
    return page


def _filled(table: str, found: re.Match[str]) -> str:
    return f"{found[1]}{table}\n{found[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
