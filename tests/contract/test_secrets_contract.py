"""What every `ports.secrets.Keyring` does: an operator's secrets are read and left alone, Sterna's come and go."""

import uuid as uuids
from collections.abc import Iterator

import pytest

from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import SecretRef
from sterna.domain.secrets import Secret
from tests.contract.two_hosts import TwoHosts

VM, OTHER_VM = "11111111-2222-4333-8444-555555555555", "21111111-2222-4333-8444-555555555555"
WORD = b"the word"


@pytest.fixture
def secret(hosts: TwoHosts) -> Iterator[Secret]:
    made = Secret(uuid=str(uuids.uuid4()), kind="iscsi", usage=f"target-{uuids.uuid4()}")
    yield made
    for side in (hosts.a, hosts.b):
        hosts.undefine_secret(side, made.uuid)


def by_uuid(secret: Secret) -> SecretRef:
    return SecretRef(kind=secret.kind, uuid=secret.uuid)


def by_usage(secret: Secret) -> SecretRef:
    return SecretRef(kind=secret.kind, usage=secret.usage)


async def test_an_operators_secret_is_found_by_uuid_and_by_usage_and_read(hosts: TwoHosts, secret: Secret) -> None:
    keyring = hosts.a.hypervisor
    assert await keyring.secrets_like([by_uuid(secret), by_usage(secret)]) == []
    with pytest.raises(NotFound):
        await keyring.secret_value(secret.uuid)
    hosts.define_secret(hosts.a, secret, WORD)
    assert secret.uuid not in [s.uuid for s in await keyring.unused_secrets()]
    expected = secret.model_copy(update={"has_value": True})
    for refs in ([by_uuid(secret)], [by_usage(secret)], [by_uuid(secret), by_usage(secret)]):
        assert await keyring.secrets_like(refs) == [expected]
    assert await keyring.secrets_like([SecretRef(kind="volume", usage=secret.usage)]) == []
    assert await keyring.secret_value(secret.uuid) == WORD
    assert await keyring.remove_secret(secret.uuid, VM) is False
    await keyring.make_secret(secret.model_copy(update={"made_for": VM, "made_by": "m"}), b"another")
    assert await keyring.secret_value(secret.uuid) == WORD
    assert await keyring.secrets_like([by_uuid(secret)]) == [expected]


async def test_what_cannot_be_read(hosts: TwoHosts, secret: Secret) -> None:
    keyring = hosts.a.hypervisor
    hosts.define_secret(hosts.a, secret, None)
    assert [s.has_value for s in await keyring.secrets_like([by_uuid(secret)])] == [False]
    with pytest.raises(Permanent):
        await keyring.secret_value(secret.uuid)
    with pytest.raises(Conflict):
        await keyring.make_secret(secret.model_copy(update={"made_for": VM, "made_by": "m"}), WORD)
    hosts.undefine_secret(hosts.a, secret.uuid)
    hosts.define_secret(hosts.a, secret.model_copy(update={"private": True}), WORD)
    (seen,) = await keyring.secrets_like([by_uuid(secret)])
    assert (seen.private, seen.has_value) == (True, None)
    with pytest.raises(Permanent) as refused:
        await keyring.secret_value(secret.uuid)
    assert WORD.decode() not in str(refused.value)


async def test_sternas_own_comes_with_its_mark_and_goes_by_it(hosts: TwoHosts, secret: Secret) -> None:
    keyring = hosts.b.hypervisor
    for ephemeral in (False, True):
        mine = secret.model_copy(update={"made_for": VM, "made_by": "m1", "ephemeral": ephemeral})
        for _ in range(2):
            await keyring.make_secret(mine, b"\x00\xff any bytes")
        assert await keyring.secrets_like([by_usage(secret)]) == [mine.model_copy(update={"has_value": True})]
        assert await keyring.secret_value(secret.uuid) == b"\x00\xff any bytes"
        assert secret.uuid in [s.uuid for s in await keyring.unused_secrets()]
        assert await keyring.remove_secret(secret.uuid, OTHER_VM) is False
        assert await keyring.remove_secret(secret.uuid, VM, "m2") is False
        assert await keyring.remove_secret(secret.uuid, VM, "m1") is True
        assert await keyring.remove_secret(secret.uuid, VM) is False
        assert await keyring.secrets_like([by_uuid(secret)]) == []


async def test_a_usage_that_is_taken_is_refused(hosts: TwoHosts, secret: Secret) -> None:
    hosts.define_secret(hosts.b, secret, WORD)
    other = secret.model_copy(update={"uuid": str(uuids.uuid4()), "made_for": VM, "made_by": "m"})
    with pytest.raises(Permanent):
        await hosts.b.hypervisor.make_secret(other, WORD)
    assert await hosts.b.hypervisor.secret_value(secret.uuid) == WORD


async def test_what_a_guest_here_refers_to_stays(hosts: TwoHosts) -> None:
    vm = await hosts.vm("luks", "chap")
    keyring = hosts.a.hypervisor
    luks, chap = (disk.secrets[0] for disk in vm.disks)
    assert (luks.kind, luks.usage, chap.kind, chap.uuid) == ("volume", None, "iscsi", None)
    assert chap.username
    assert [disk.encrypted for disk in vm.disks] == [True, False]
    for known in await keyring.secrets_like([luks, chap]):
        value = await keyring.secret_value(known.uuid)
        hosts.undefine_secret(hosts.a, known.uuid)
        await keyring.make_secret(known.model_copy(update={"made_for": vm.uuid, "made_by": "m"}), value)
        assert await keyring.remove_secret(known.uuid, vm.uuid) is False
    assert all(s.has_value for s in await keyring.secrets_like([luks, chap]))
    assert vm.uuid not in [s.made_for for s in await keyring.unused_secrets()]


async def test_volumes_with_secrets_are_proven_to_open(hosts: TwoHosts) -> None:
    vm = await hosts.vm("luks", "chap")
    luks, chap = vm.disks
    known = await hosts.a.hypervisor.secrets_like([luks.secrets[0], chap.secrets[0]])
    for secret in known:
        value = await hosts.a.hypervisor.secret_value(secret.uuid)
        await hosts.b.hypervisor.make_secret(secret.model_copy(update={"made_for": VM, "made_by": "m"}), value)
    assert await hosts.b.files.check(luks, hosts.a.name) == []
    assert await hosts.b.files.connect(luks) == luks
    attached = await hosts.b.iscsi.attach(chap, hosts.a.name)
    assert (await hosts.b.iscsi.connect(attached)).secrets == chap.secrets
    await hosts.b.iscsi.detach(attached)
    for secret in known:
        assert await hosts.b.hypervisor.remove_secret(secret.uuid, VM)
