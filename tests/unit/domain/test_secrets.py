"""Which secrets a host lacks, and what to do about those that cannot be carried."""

from sterna.domain.model import Disk, DiskKind, Refusal, SecretRef
from sterna.domain.secrets import Need, Secret, lacks, refs_of, uncarriable

UUID, OTHER = "0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11", "1b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11"
LUKS = Secret(uuid=UUID, kind="volume", usage="/srv/a", has_value=True)
BY_UUID = Need(ref=SecretRef(kind="volume", uuid=UUID), known=LUKS)
BY_USAGE = Need(ref=SecretRef(kind="volume", usage="/srv/a"), known=LUKS)


def judged(need: Need, *here: Secret) -> bool | str:
    answer = lacks(need, here, host="host2", vm_uuid="vm")
    if isinstance(answer, Refusal):
        assert "host2" in answer.message
        assert "host2" in answer.fix
        return answer.code
    return answer


def test_what_is_there_is_not_lacking() -> None:
    private = LUKS.model_copy(update={"private": True, "has_value": None})
    for need in (BY_UUID, BY_USAGE):
        assert judged(need) is True
        assert judged(need, LUKS) is False
        assert judged(need, private) is False
    assert judged(BY_USAGE, LUKS.model_copy(update={"uuid": OTHER})) is False


def test_another_one_in_its_place_is_a_conflict() -> None:
    assert judged(BY_UUID, LUKS.model_copy(update={"usage": "/srv/b"})) == "secret-conflict"
    assert judged(BY_UUID, LUKS.model_copy(update={"kind": "ceph"})) == "secret-conflict"
    assert judged(BY_UUID, LUKS.model_copy(update={"uuid": OTHER})) == "secret-conflict"
    assert judged(BY_USAGE, LUKS.model_copy(update={"usage": "/srv/b"})) == "secret-conflict"
    unknown = Need(ref=SecretRef(kind="volume", uuid=UUID))
    assert judged(unknown, LUKS) is False
    assert judged(unknown, LUKS.model_copy(update={"kind": "ceph"})) == "secret-conflict"


def test_without_a_value_it_is_lacking_only_where_it_was_made_for_this_vm() -> None:
    empty = LUKS.model_copy(update={"has_value": False})
    assert judged(BY_UUID, empty) == "secret-without-value"
    assert judged(BY_UUID, empty.model_copy(update={"made_for": "another"})) == "secret-without-value"
    assert judged(BY_UUID, empty.model_copy(update={"made_for": "vm"})) is True


def test_secrets_without_a_usage_do_not_stand_in_each_others_way() -> None:
    bare = Secret(uuid=UUID, kind="none", has_value=True)
    need = Need(ref=SecretRef(kind="none", uuid=UUID), known=bare)
    assert judged(need, Secret(uuid=OTHER, kind="none")) is True


def test_what_cannot_be_carried_says_exactly_what_to_do() -> None:
    def why(known: Secret | None) -> Refusal:
        ref = SecretRef(kind="iscsi", uuid=UUID)
        found = uncarriable(Need(ref=ref, known=known), source="host1", destination="host2")
        assert found is not None
        return found

    chap = Secret(uuid=UUID, kind="iscsi", usage="target-a")
    private = why(chap.model_copy(update={"private": True}))
    assert "private on host1" in private.message
    usage = "<usage type='iscsi'><target>target-a</target></usage>"
    assert f"<secret><uuid>{UUID}</uuid>{usage}</secret>" in private.fix
    assert f"virsh secret-set-value {UUID}" in private.fix
    assert "no value on host1" in why(chap.model_copy(update={"has_value": False})).message
    assert "neither host1 nor host2" in why(None).message
    assert uncarriable(BY_UUID, source="host1", destination="host2") is None


def test_each_is_needed_once() -> None:
    ref = SecretRef(kind="iscsi", uuid=UUID, username="a")
    disks = tuple(
        Disk(target=t, kind=DiskKind.ISCSI, secrets=(ref.model_copy(update={"username": t}),)) for t in "ab"
    )
    assert refs_of(disks) == (SecretRef(kind="iscsi", uuid=UUID),)
