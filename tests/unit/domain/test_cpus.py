"""What a fleet's CPUs have in common, and which hosts cannot exchange guests that see them. Pure."""

from __future__ import annotations

import pytest

from sterna.domain.cpus import (
    MOST_FEATURES,
    MOST_PAIRS,
    CpuPair,
    HostCpu,
    compare,
    described,
    missing_of,
    named,
)
from sterna.domain.errors import BadRequest
from sterna.domain.model import Data


def cpu(*features: str, vendor: str = "Intel", models: tuple[str, ...] = ("Nehalem",), **more: str) -> HostCpu:
    facts: Data = {"arch": "x86_64", "virt_type": "kvm", "model": "Nehalem", "vendor": vendor} | more
    return HostCpu(**facts, features=tuple(sorted(features)), models=models)


OLD = cpu("aes", "sse2")
NEW = cpu("aes", "avx", "avx2", "sse2", models=("Haswell", "Nehalem"))
OTHER = cpu("aes", "sse2", "svm", vendor="AMD", models=("EPYC", "Nehalem"))


def test_what_all_have_and_what_each_has_beyond_that() -> None:
    found = compare([(NEW, ["c"]), (OLD, ["b", "a"]), (OTHER, ["d"])], {"e": "it is older"})
    assert [(group.number, group.hosts, group.beyond) for group in found.groups] == [
        (1, ("a", "b"), ()),
        (2, ("c",), ("avx", "avx2")),
        (3, ("d",), ("svm",)),
    ]
    assert (found.features, found.models, found.unknown) == (("aes", "sse2"), ("Nehalem",), {"e": "it is older"})


def test_each_direction_is_a_pair_of_its_own() -> None:
    found = compare([(OLD, ["a", "b"]), (NEW, ["c"])], {})
    assert found.pairs == (CpuPair(source=2, destination=1, missing=("avx", "avx2")),)
    assert compare([(OLD, ["a"])], {}).pairs == ()


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (cpu("aes", "sse2", vendor="AMD"), "a CPU of AMD, not of Intel"),
        (cpu("aes", "sse2", virt_type="qemu"), "virtualisation of type qemu, not kvm"),
        (cpu("aes", "sse2", arch="aarch64"), "aarch64, not x86_64"),
    ],
)
def test_more_than_features_may_be_different(other: HostCpu, why: str) -> None:
    pairs = compare([(OLD, ["a", "b"]), (other, ["c"])], {}).pairs
    assert pairs[0] == CpuPair(source=1, destination=2, why=why)
    assert [(pair.source, pair.destination) for pair in pairs] == [(1, 2), (2, 1)]


def test_no_host_is_known() -> None:
    found = compare([], {"a": "why"})
    assert (found.groups, found.features, found.unknown) == ((), (), {"a": "why"})


def test_many_different_cpus_are_compared_and_not_all_listed() -> None:
    many = [(cpu("sse2", f"x{number}"), [f"h{number}"]) for number in range(100)]
    found = compare(many, {})
    assert len(found.pairs) == MOST_PAIRS and found.pairs_left_out == 100 * 99 - MOST_PAIRS


def test_equal_cpus_have_one_text() -> None:
    assert OLD.text == cpu("sse2", "aes").text
    assert len({one.text for one in (OLD, NEW, OTHER, cpu("aes", "sse2", models=()))}) == 4
    assert described(NEW.model_dump(mode="json")) == NEW


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        NEW.model_dump(mode="json") | {"features": "avx"},
        NEW.model_dump(mode="json") | {"features": ["x"] * (MOST_FEATURES + 1)},
        NEW.model_dump(mode="json") | {"models": ["x" * 65]},
        NEW.model_dump(mode="json") | {"model": "\x1b[31m"},
        NEW.model_dump(mode="json") | {"features": ["aes avx avx2 sse2"]},
    ],
)
def test_a_description_that_cannot_be_one_is_refused(raw: object) -> None:
    with pytest.raises(BadRequest):
        described(raw)


def test_features_in_a_sentence() -> None:
    assert missing_of(["b", "a", "c"], ["c"]) == ("a", "b")
    assert named(("a", "b")) == "a, b"
    assert named(tuple(f"f{number:02}" for number in range(15))).endswith("f11 and 3 more")
