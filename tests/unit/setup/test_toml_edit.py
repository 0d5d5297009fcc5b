"""Keys of a settings file are changed; everything else stays as somebody wrote it."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.errors import BadRequest
from sterna.setup.toml_edit import Changes, edited

TEXT = """\
# of this host
host = "compute1"   # "never" change

[bus]
# where NATS is
url = "nats://10.0.0.1:4222"

# the migration network
[migration]
address = "10.0.0.11"
more_addresses = ["10.1.0.11"]  # storage

[[access.tokens]]
name = "ci"
"""


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({("host",): "b"}, 'host = "compute1"   # "never" change', 'host = "b"   # "never" change'),
        ({("traits",): ["A", "B"]}, '# "never" change\n', '# "never" change\ntraits = ["A", "B"]\n'),
        ({("bus", "user"): "x"}, '4222"\n\n', '4222"\nuser = "x"\n\n'),
        ({("migration", "insecure"): True}, "# storage\n", "# storage\ninsecure = true\n"),
        ({("migration", "more_addresses"): ["::1"]}, '["10.1.0.11"]  # storage', '["::1"]  # storage'),
        ({("identity", "enrol"): "sterna"}, '"ci"\n', '"ci"\n\n[identity]\nenrol = "sterna"\n'),
        ({("bus", "tls", "ca_file"): "/x"}, '"ci"\n', '"ci"\n\n[bus.tls]\nca_file = "/x"\n'),
    ],
)
def test_a_key_is_changed_and_nothing_else(changes: Changes, before: str, after: str) -> None:
    assert edited(TEXT, changes) == TEXT.replace(before, after)


def test_several_keys_of_a_new_file() -> None:
    made = edited("", {("host",): "a", ("bus", "url"): "nats://x:1", ("bus", "user"): 'q"\\', ("n",): 3})
    assert made == 'host = "a"\nn = 3\n\n[bus]\nurl = "nats://x:1"\nuser = "q\\"\\\\"\n'


def test_what_is_commented_out_is_not_taken_for_the_key() -> None:
    assert edited("# host = 1\n[bus]\n", {("host",): "a"}) == '# host = 1\nhost = "a"\n[bus]\n'


@pytest.mark.parametrize(
    "text",
    [
        'bus = { url = "x" }\n',
        'bus.url = "x"\n[other]\n',
        '[bus]\nurl = """\nx\n"""\n',
        '["bus"]\nurl = "x"\n',
        'x = """\n[bus]\n"""\n',
    ],
)
def test_a_form_that_cannot_be_changed_is_left_to_a_person(text: str) -> None:
    """Or is changed rightly."""
    try:
        made = edited(text, {("bus", "url"): "y"})
    except BadRequest as error:
        assert 'bus.url = "y"' in error.fix
    else:
        assert tomllib.loads(made)["bus"]["url"] == "y" and tomllib.loads(made).get("x") == tomllib.loads(text).get(
            "x"
        )


def test_what_is_not_toml_is_refused() -> None:
    with pytest.raises(BadRequest, match="line 1"):
        edited("a = = b", {("host",): "x"})


WORDS = st.sampled_from(["a", "b", "host", "url"])
VALUES = st.one_of(
    st.booleans(), st.integers(-5, 5), st.text(st.characters(codec="utf-8", exclude_categories=["C"]))
)
KEYS = st.one_of(st.tuples(WORDS), st.tuples(st.sampled_from(["bus", "net"]), WORDS))


@given(st.lists(st.tuples(KEYS, VALUES), max_size=8))
def test_one_after_the_other_is_as_all_at_once(pairs: list[tuple[tuple[str, ...], bool | int | str]]) -> None:
    text = TEXT
    for key, value in pairs:
        text = edited(text, {key: value})
    assert tomllib.loads(text) == tomllib.loads(edited(TEXT, dict(pairs)))
    assert edited(text, dict(pairs)) == text
