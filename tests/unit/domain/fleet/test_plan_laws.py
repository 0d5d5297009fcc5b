"""What holds for the plans of random fleets, in whatever order their moves begin and end."""

from __future__ import annotations

from collections import Counter, defaultdict
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.domain.fleet.balancing import fullness
from sterna.domain.fleet.board import Board
from sterna.domain.fleet.operations import BringBack, Drain, Operation, Rebalance, Return, Rolling
from sterna.domain.fleet.planner import plan
from sterna.domain.fleet.plans import Purpose
from sterna.domain.fleet.snapshot import Snapshot
from sterna.domain.fleet.tables import Tables
from sterna.domain.policies import May
from tests.unit.domain.fleet.fleets import fleets
from tests.unit.domain.fleet.playing import Player

MAYS = st.sampled_from([frozenset[May](), frozenset({May.POSTCOPY})])
EXAMPLES = settings(max_examples=40, deadline=None)


@st.composite
def drains(draw: st.DrawFn) -> tuple[Snapshot, Drain]:
    snapshot = draw(fleets())
    names = [host.name for host in snapshot.hosts]
    some = draw(st.frozensets(st.sampled_from(names), min_size=1, max_size=max(1, len(names) - 1)))
    return snapshot, Drain(hosts=some, may=draw(MAYS))


@st.composite
def rollings(draw: st.DrawFn) -> tuple[Snapshot, Rolling]:
    snapshot = draw(fleets(least_hosts=3))
    wish = Rolling(
        hosts=frozenset(host.name for host in snapshot.hosts),
        most_closed=draw(st.integers(1, 3)),
        of_one_domain=draw(st.sampled_from([None, 1, 2])),
        may=draw(MAYS),
    )
    return snapshot, wish


# -------------------------------------------------------------- room and rules at every instant


@given(drains(), st.randoms(use_true_random=False))
@EXAMPLES
def test_a_drain_never_overfills_a_host_nor_breaks_a_rule(asked: tuple[Snapshot, Drain], random: Random) -> None:
    snapshot, drain = asked
    player = Player(snapshot, plan(snapshot, drain))
    player.play(random)
    assert len(player.ended) == len(player.plan.moves)


@given(rollings(), st.randoms(use_true_random=False))
@EXAMPLES
def test_a_rolling_operation_never_does_either(asked: tuple[Snapshot, Rolling], random: Random) -> None:
    snapshot, rolling = asked
    player = Player(snapshot, plan(snapshot, rolling))
    player.play(random)
    assert len(player.ended) == len(player.plan.moves)


@given(drains(), st.randoms(use_true_random=False))
@EXAMPLES
def test_bringing_back_never_does_either(asked: tuple[Snapshot, Drain], random: Random) -> None:
    snapshot, drain = asked
    away = Player(snapshot, plan(snapshot, drain))
    away.play(random, random.randrange(20))
    for move in away.running():
        away.end(move)
    after, ended = away.now(), [move for move in away.plan.moves if move.number in away.ended]
    returns = tuple(Return(vm=move.vm, origin=move.source, put_on=move.target) for move in ended)
    back = plan(after, BringBack(returns=returns, may=drain.may))
    player = Player(after, back)
    player.play(random)
    at = {vm.uuid: vm.host for vm in player.now().vms}
    stays = {one.vm for one in back.left}
    assert all(at[one.vm] == one.origin or one.vm in stays for one in returns)


@given(fleets(), st.randoms(use_true_random=False))
@EXAMPLES
def test_vms_that_change_places_never_do_either(snapshot: Snapshot, random: Random) -> None:
    names = [host.name for host in snapshot.hosts]
    some = [vm for vm in snapshot.vms if random.random() < 0.6]
    returns = tuple(Return(vm=vm.uuid, origin=random.choice(names), put_on=vm.host) for vm in some)
    back = plan(snapshot, BringBack(returns=returns))
    player = Player(snapshot, back)
    player.play(random)
    at, stays = {vm.uuid: vm.host for vm in player.now().vms}, {one.vm for one in back.left}
    assert all(at[one.vm] == (one.put_on if one.vm in stays else one.origin) for one in returns)
    assert len(player.ended) == len(back.moves)


def _balance(hosts: frozenset[str] = frozenset()) -> Rebalance:
    return Rebalance(threshold=0.1, hosts=hosts, may=frozenset({May.POSTCOPY}))


def _fullness(snapshot: Snapshot) -> list[float]:
    """Of all open hosts, the fullest first."""
    board = Board(Tables(snapshot))
    return sorted((fullness(board, h) for h in range(len(board.mem)) if board.open[h]), reverse=True)


@given(fleets(), st.randoms(use_true_random=False))
@EXAMPLES
def test_rebalancing_never_does_either(snapshot: Snapshot, random: Random) -> None:
    player = Player(snapshot, plan(snapshot, _balance()))
    player.play(random)
    assert len(player.ended) == len(player.plan.moves)


@given(fleets(), st.randoms(use_true_random=False), st.integers(0, 12))
@EXAMPLES
def test_a_rebalance_that_is_planned_again_on_the_way_does_neither(
    snapshot: Snapshot, random: Random, steps: int
) -> None:
    player = Player(snapshot, plan(snapshot, _balance()))
    player.play(random, steps)
    rest = Player(player.now(), plan(player.now(), _balance()))
    assert {move.vm for move in rest.running()} == {move.vm for move in player.running()}
    rest.play(random)
    assert len(rest.ended) == len(rest.plan.moves)


@given(fleets(), st.randoms(use_true_random=False))
@EXAMPLES
def test_rebalancing_comes_to_an_end_and_each_plan_is_worth_it(snapshot: Snapshot, random: Random) -> None:
    for _ in range(100):
        made = plan(snapshot, _balance())
        if not made.moves:
            break
        player = Player(snapshot, made)
        player.play(random)
        before, snapshot = _fullness(snapshot), player.now()
        assert _fullness(snapshot) < before
        assert max(Counter(move.vm for move in made.moves).values()) == 1
    assert plan(snapshot, _balance()).moves == ()


@given(fleets())
@EXAMPLES
def test_a_rebalance_takes_from_full_hosts_only_and_moves_no_vm_for_a_little(snapshot: Snapshot) -> None:
    board = Board(Tables(snapshot))
    made = plan(snapshot, _balance())
    tables = board.tables
    for move in made.moves:
        v, source, target = tables.vm_at[move.vm], tables.host_at[move.source], tables.host_at[move.target]
        most, difference = fullness(board, source), fullness(board, source) - fullness(board, target)
        board.take(v, target)
        board.arrive(v, target)
        after = max(fullness(board, source), fullness(board, target))
        assert difference > 0.1 and most - after >= 0.1 * difference - 1e-9
        assert not tables.mates[v] and not tables.vms[v].pinned


@given(fleets(), st.integers(1, 2))
@EXAMPLES
def test_a_rebalance_keeps_the_reserve(snapshot: Snapshot, spare: int) -> None:
    limits = snapshot.limits.model_copy(update={"spare_hosts": spare})
    snapshot = snapshot.model_copy(update={"limits": limits})
    board = Board(Tables(snapshot))
    board.keep(spare)
    for move in plan(snapshot, _balance()).moves:
        v, target = board.tables.vm_at[move.vm], board.tables.host_at[move.target]
        assert board.reserve is not None and board.reserve.bears(v, target)
        board.take(v, target)
        board.arrive(v, target)


# -------------------------------------------------------------- what moves and what stays


@given(drains())
@EXAMPLES
def test_each_vm_of_a_drained_host_moves_once_or_stays_with_a_reason(asked: tuple[Snapshot, Drain]) -> None:
    snapshot, drain = asked
    answer = plan(snapshot, drain)
    inside = {vm.uuid for vm in snapshot.vms if vm.host in drain.hosts}
    moved = Counter(move.vm for move in answer.moves)
    left = {one.vm for one in answer.left}
    assert max(moved.values(), default=1) == 1
    assert inside == {uuid for uuid in moved if uuid in inside} | left
    assert not left & set(moved)
    assert all(one.reason.startswith((one.name, f"a rule keeps {one.name}")) for one in answer.left)
    assert {move.target for move in answer.moves}.isdisjoint(drain.hosts)


@given(drains())
@EXAMPLES
def test_no_other_vm_moves_but_to_make_room_for_one_that_follows(asked: tuple[Snapshot, Drain]) -> None:
    snapshot, drain = asked
    answer = plan(snapshot, drain)
    needed = {number for move in answer.moves for number in move.after}
    for move in answer.moves:
        if move.source not in drain.hosts:
            assert move.purpose is Purpose.ROOM
            assert move.number in needed


@given(drains())
@EXAMPLES
def test_vms_that_are_to_be_together_go_to_one_host(asked: tuple[Snapshot, Drain]) -> None:
    snapshot, drain = asked
    target = {move.vm: move.target for move in plan(snapshot, drain).moves}
    for rule in snapshot.rules.together:
        assert len({target[uuid] for uuid in rule.vms if uuid in target}) <= 1


@given(rollings())
@EXAMPLES
def test_a_rolling_operation_closes_what_it_may(asked: tuple[Snapshot, Rolling]) -> None:
    snapshot, rolling = asked
    answer = plan(snapshot, rolling)
    domain_of = {host.name: host.domain for host in snapshot.hosts}
    closed = [name for wave in answer.waves for name in wave.hosts]
    assert len(closed) == len(set(closed))
    assert set(closed) | set(answer.skipped) == rolling.hosts
    assert not set(closed) & set(answer.skipped)
    for number, wave in enumerate(answer.waves):
        assert len(wave.hosts) <= rolling.most_closed
        domains = Counter(domain_of[name] for name in wave.hosts if domain_of[name])
        assert max(domains.values(), default=0) <= (rolling.of_one_domain or rolling.most_closed)
        targets = {move.target for move in answer.moves if move.wave == number}
        assert targets.isdisjoint(wave.hosts)


@given(rollings(), st.randoms(use_true_random=False))
@EXAMPLES
def test_the_hosts_of_a_wave_are_empty_at_its_end(asked: tuple[Snapshot, Rolling], random: Random) -> None:
    snapshot, rolling = asked
    answer = plan(snapshot, rolling)
    at = {vm.uuid: vm.host for vm in snapshot.vms}
    for number, wave in enumerate(answer.waves):
        at |= {move.vm: move.target for move in answer.moves if move.wave == number}
        assert not set(at.values()) & set(wave.hosts)


# -------------------------------------------------------------- the same again


def _shuffled(snapshot: Snapshot, random: Random) -> Snapshot:
    hosts, vms = list(snapshot.hosts), list(snapshot.vms)
    random.shuffle(hosts)
    random.shuffle(vms)
    return snapshot.model_copy(update={"hosts": tuple(hosts), "vms": tuple(vms)})


@given(st.one_of(drains(), rollings()), st.randoms(use_true_random=False))
@EXAMPLES
def test_a_plan_depends_on_the_fleet_alone(asked: tuple[Snapshot, Operation], random: Random) -> None:
    snapshot, operation = asked
    again = Snapshot.model_validate_json(_shuffled(snapshot, random).model_dump_json())
    assert plan(again, operation) == plan(snapshot, operation)


@given(drains(), st.randoms(use_true_random=False), st.integers(0, 30))
@EXAMPLES
def test_a_drain_that_is_planned_again_on_the_way_goes_on(
    asked: tuple[Snapshot, Drain], random: Random, steps: int
) -> None:
    snapshot, drain = asked
    first = plan(snapshot, drain)
    player = Player(snapshot, first)
    player.play(random, steps)
    second = plan(player.now(), drain, first)
    rest_of = {move.vm: move.target for move in first.moves if move.number not in player.ended}
    again = {move.vm: move.target for move in second.moves}
    assert rest_of.items() <= again.items()
    assert {move.vm for move in second.moves if move.begun} == {move.vm for move in player.running()}
    left = {one.vm for one in first.left}
    assert {one.vm for one in second.left} <= left
    assert all(move.vm in rest_of or move.vm in left or move.purpose is Purpose.ROOM for move in second.moves)
    rest = Player(player.now(), second)
    rest.play(random)
    assert len(rest.ended) == len(second.moves)


@given(rollings(), st.randoms(use_true_random=False), st.integers(0, 30))
@EXAMPLES
def test_a_rolling_operation_that_is_planned_again_on_the_way_goes_on(
    asked: tuple[Snapshot, Rolling], random: Random, steps: int
) -> None:
    snapshot, rolling = asked
    first = plan(snapshot, rolling)
    player = Player(snapshot, first)
    player.play(random, steps)
    over = {move.number for move in first.moves} <= player.ended
    current = min((move.wave for move in first.moves if move.number not in player.ended), default=0)
    done = frozenset(name for wave in first.waves[:current] for name in wave.hosts)
    second = plan(player.now(), rolling.model_copy(update={"done": done}), first)
    if not over:
        rest = {m.vm: m.target for m in first.moves if m.wave == current and m.number not in player.ended}
        assert set(first.waves[current].hosts) <= set(second.waves[0].hosts)
        assert rest.items() <= {m.vm: m.target for m in second.moves if m.wave == 0}.items()
        assert {m.vm for m in second.moves if m.begun} == {m.vm for m in player.running()}
    again = Player(player.now(), second)
    again.play(random)
    assert len(again.ended) == len(second.moves)


# -------------------------------------------------------------- times


@given(st.one_of(drains(), rollings()))
@EXAMPLES
def test_no_plan_is_shorter_than_its_bound_and_no_promise_than_what_is_expected(
    asked: tuple[Snapshot, Operation],
) -> None:
    answer = plan(*asked)
    assert answer.promise.expected_s >= answer.bounds.most_s - 0.1
    assert answer.promise.promised_s >= answer.promise.expected_s
    for move in answer.moves:
        assert 0 <= move.start_s < move.end_s
        by_number = {one.number: one for one in answer.moves}
        assert all(by_number[before].end_s <= move.start_s for before in move.after)


@given(drains())
@EXAMPLES
def test_each_host_prepares_no_more_than_it_may(asked: tuple[Snapshot, Drain]) -> None:
    snapshot, drain = asked
    limit = snapshot.limits.preparing
    begins: defaultdict[tuple[str, str], Counter[float]] = defaultdict(Counter)
    for move in plan(snapshot, drain).moves:
        begins[move.source, "out"][move.start_s] += 1
        begins[move.target, "in"][move.start_s] += 1
    assert all(count <= limit for counts in begins.values() for count in counts.values())
