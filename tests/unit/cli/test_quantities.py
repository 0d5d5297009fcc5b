from __future__ import annotations

import pytest
import typer

from sterna.cli.quantities import duration_ms, rate_bytes_s


@pytest.mark.parametrize(
    ("text", "ms"),
    [("300ms", 300), ("1.5s", 1500), ("10m", 600_000), ("10min", 600_000), ("2h", 7_200_000), (" 90 S ", 90_000)],
)
def test_times(text: str, ms: float) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("200", 200 * 2**20),
        ("200MiB/s", 200 * 2**20),
        ("200mib", 200 * 2**20),
        ("1GB/s", 10**9),
        ("10Gbit/s", 1_250_000_000),
        ("0.5GiB/s", 2**29),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert rate_bytes_s(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1s", "10", "10 days", "1s/s", "nan"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="10m"):
        duration_ms(text)


@pytest.mark.parametrize("text", ["", "fast", "-5", "5 miles", "MiB/s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="200MiB/s"):
        rate_bytes_s(text)
