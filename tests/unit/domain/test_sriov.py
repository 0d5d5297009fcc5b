"""Which virtual function is chosen: free, of the right network, never one that somebody has."""

from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.sriov import GUESTS_DRIVER, VirtualFunction, choose, free


def address(number: int) -> str:
    return f"0000:3b:{number // 8:02x}.{number % 8}"


FUNCTIONS = st.lists(
    st.builds(
        VirtualFunction,
        address=st.integers(0, 30).map(address),
        parent=st.sampled_from(["eth0", "eth1"]),
        physical_network=st.sampled_from(["red", "blue"]),
        driver=st.sampled_from(["", "iavf", GUESTS_DRIVER]),
    ),
    unique_by=lambda f: f.address,
)


@given(FUNCTIONS, st.sampled_from(["red", "blue", "green"]), st.sets(st.integers(0, 30).map(address)))
def test_it_is_free_and_on_the_network_and_none_only_where_there_is_none(
    functions: list[VirtualFunction], network: str, taken: set[str]
) -> None:
    chosen = choose(functions, network, taken)
    mine = [f for f in functions if f.physical_network == network and f.address not in taken]
    possible = [f for f in mine if f.driver != GUESTS_DRIVER]
    assert (chosen is None) == (not possible)
    if chosen is not None:
        assert chosen in possible
        assert choose(list(reversed(functions)), network, taken) == chosen, "the same question, the same answer"
        left = {f.parent: len([g for g in possible if g.parent == f.parent]) for f in possible}
        assert left[chosen.parent] == max(left.values()), "the load is spread"


@given(FUNCTIONS)
def test_as_many_guests_as_there_are_functions_get_one_each(functions: list[VirtualFunction]) -> None:
    taken: set[str] = set()
    count = len(free(functions, "red", ()))
    for _ in range(count):
        chosen = choose(functions, "red", taken)
        assert chosen is not None
        taken.add(chosen.address)
    assert len(taken) == count
    assert choose(functions, "red", taken) is None
