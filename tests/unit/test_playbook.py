"""The playbook and its inventory: YAML of the form that Ansible reads, and commands that there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.unit.command_lines import trouble
from tests.unit.pages import ROOT

FOLDER = ROOT / "packaging/ansible"
MODULES = {"ansible.builtin.apt", "ansible.builtin.command", "ansible.builtin.stat"}
KEYWORDS = {"name", "register", "changed_when", "failed_when", "when", "delegate_to", "no_log"}


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def tasks() -> Iterator[dict[str, Any]]:
    for play in read("site.yml"):
        yield from play["tasks"]


def commands() -> Iterator[tuple[dict[str, Any], list[str]]]:
    for task in tasks():
        if command := task.get("ansible.builtin.command"):
            yield task, command["argv"]


def test_the_inventory_has_a_controller_and_ten_hosts() -> None:
    groups = read("inventory.yml")["all"]["children"]
    assert {name: len(group["hosts"]) for name, group in groups.items()} == {
        "sterna_controller": 1,
        "sterna_hosts": 10,
    }
    hosts = {**groups["sterna_controller"]["hosts"], **groups["sterna_hosts"]["hosts"]}
    assert len({one["sterna_address"] for one in hosts.values()}) == 11
    assert all("." not in name for name in hosts)


def test_each_play_is_for_a_group_of_the_inventory() -> None:
    groups = read("inventory.yml")["all"]["children"]
    for play in read("site.yml"):
        assert play["hosts"] in groups and play["become"] is True and play["name"] and play["tasks"]


def test_each_task_has_one_module() -> None:
    for task in tasks():
        assert len(task.keys() & MODULES) == 1 and task.keys() - MODULES <= KEYWORDS and task["name"], task


def test_each_command_can_be_typed_and_says_whether_it_has_changed_something() -> None:
    found = list(commands())
    assert len(found) >= 5
    for task, argv in found:
        assert argv[0] == "sterna" and trouble(argv[1:]) == "", task["name"]
        assert "changed_when" in task or "failed_when" in task


def test_a_token_is_in_no_argument_and_in_no_output() -> None:
    found = [(task, argv) for task, argv in commands() if "token" in str(task)]
    assert len(found) == 2
    made, used = found
    assert made[0]["no_log"] is True and made[1][1:3] == ["host", "add"]
    assert used[0]["ansible.builtin.command"]["stdin"] == "{{ token.stdout }}" and "--token-file=-" in used[1]
    assert not any("token.stdout" in word for _, argv in commands() for word in argv)
