"""What seals a secret's value between two agents."""

import pytest

from sterna.adapters.sealing import HpkeSealing
from sterna.domain.errors import BadRequest, Temporary


def test_only_the_process_it_is_for_can_open_it_and_only_as_what_it_is_about() -> None:
    here, there, later_life = HpkeSealing(), HpkeSealing(), HpkeSealing()
    sealed = here.seal(b"the word \x00\xff", key=there.public_key, about="m1 s1")
    assert there.open(sealed, about="m1 s1") == b"the word \x00\xff"
    for who, about in ((later_life, "m1 s1"), (here, "m1 s1"), (there, "m2 s1"), (there, "m1 s2")):
        with pytest.raises(Temporary) as refused:
            who.open(sealed, about=about)
        assert refused.value.__suppress_context__
    assert here.seal(b"x", key=there.public_key, about="a") != here.seal(b"x", key=there.public_key, about="a")


@pytest.mark.parametrize("sealed", ["", "AAAA", "no base64!", "A" * 400])
def test_what_was_tampered_with_is_to_be_sent_again(sealed: str) -> None:
    with pytest.raises(Temporary):
        HpkeSealing().open(sealed, about="a")


@pytest.mark.parametrize("key", ["", "AAAA", "no base64!", "A" * 43, "A" * 400])
def test_no_key_is_no_key(key: str) -> None:
    with pytest.raises(BadRequest):
        HpkeSealing().seal(b"x", key=key, about="a")
