"""What a rehearsal, a stream and a downtime look like to a reader."""

from __future__ import annotations

from sterna.cli import formatting
from sterna.cli.formatting import _downtime_parts, _stream
from sterna.cli.plan import _downtime, _rehearsal
from sterna.domain.amounts import UNKNOWN
from sterna.domain.downtime import Downtime
from sterna.domain.hosts import Transport
from sterna.domain.objective import CopyParameters, Solution


def test_a_rehearsal_says_what_failed_and_what_was_tried() -> None:
    rehearsal = {
        "passed": False,
        "why": "TLS fails",
        "migration_id": "abc",
        "refusals": [{"code": "tls-handshake", "message": "TLS [x] fails", "fix": "fix it"}],
        "tried": ["volumes"],
    }
    lines = "\n".join(_rehearsal(rehearsal))
    assert all(
        word in lines
        for word in ("[red]", "TLS \\[x] fails \\[tls-handshake]", "fix it", "volumes", "sterna show abc")
    )
    assert _rehearsal(None) == []


def test_a_stream_says_what_it_is_made_of_and_what_was_left_out() -> None:
    parameters = CopyParameters(
        flags=("LIVE", "PARALLEL", "PEER2PEER", "TLS"),
        parameters={"parallel.connections": 3},
        transport=Transport.TLS,
        first_downtime_ms=1,
        max_downtime_ms=2,
    )
    solution = Solution(parameters=parameters, reasons=("tls: asked",), warnings=("postcopy is not used",))
    rows = _stream(solution.model_dump(mode="json"))
    assert rows[0] == ("stream", "tls, parallel; parallel.connections 3")
    assert [value for _, value in rows[1:]] == ["tls: asked", "postcopy is not used"]
    assert _stream(None) == []


def test_of_a_downtime_only_what_was_seen_is_shown() -> None:
    rows = _downtime_parts(Downtime(stop_ms=4.0, network_ms=0.0).model_dump())
    assert [value for _, value in rows] == ["4.0 ms", "0.0 ms"]


def test_a_downtime_that_scatters_is_told_as_a_range() -> None:
    scattered = {"downtime_ms": 64.0, "downtime_least_ms": 46.2, "downtime_most_ms": 88.4}
    assert _downtime(scattered) == "64.0 ms (46-88)"
    assert _downtime(scattered | {"downtime_least_ms": 60.0, "downtime_most_ms": 70.0}) == "64.0 ms"
    assert _downtime({"downtime_ms": 500.0, "downtime_most_ms": None}) == "500 ms"  # nobody knows
    assert _downtime({"downtime_ms": 64.0}) == "64.0 ms"  # a controller of before
    assert _downtime({"downtime_ms": None, "downtime_most_ms": None}) == UNKNOWN


def test_an_audit_says_which_hosts_a_nova_manages_and_that_it_is_not_known() -> None:
    nothing = {"leftovers": [], "silent_hosts": [], "clean": True}
    lines = formatting.audit(nothing | {"nova_hosts": ["host1"], "nova_reason": None})
    assert lines[0] == "no leftovers" and "host1[/]: also managed by Nova" in lines[1]
    lines = formatting.audit(nothing | {"nova_hosts": [], "nova_reason": "Nova does not answer"})
    assert lines[1] == "cannot tell which hosts are managed by Nova: Nova does not answer"
    assert formatting.audit(nothing) == ["no leftovers"]
