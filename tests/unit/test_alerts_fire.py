"""Each alert fires once, and none while all is well: by promtool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.alert_rules import RULES, promtool, rules

DAY, MINUTES = 86_400, 120
WELL = {
    'sterna_migrations{status="error"}': "0x120",
    'sterna_migrations{status="recovering"}': "0x120",
    'sterna_migrations{status="rolling-back"}': "0x120",
    'sterna_migrations{status="queued"}': "0x120",
    'sterna_host_state{host="a",state="down"}': "0x120",
    'sterna_host_state{host="a",state="degraded"}': "0x120",
    'sterna_host_warning{host="a"}': "0x120",
    "sterna_warning": "0x120",
    "sterna_certificate_expiry_timestamp_seconds": f"{60 * DAY}x120",
    "sterna_bus_connected": "1x120",
    "sterna_database_up": "1x120",
    'sterna_migrations_finished_total{outcome="failed"}': "0x120",
    'sterna_migrations_finished_total{outcome="completed"}': "0+1x120",
    "sterna_heartbeats_refused_total": "0x120",
    'sterna_notifications_pending{endpoint="pager"}': "1x120",
    'sterna_notifications_total{endpoint="pager",result="delivered"}': "0+1x120",
    "sterna_dead_letters": "0x120",
    "sterna_agent_usable": "1x120",
    "sterna_agent_libvirt_response_seconds": "0.1x120",
    "sterna_agent_outbox_pending": "0x120",
}
"""A sample each minute. Time begins at 0, so a certificate that ends on day 60 is fine."""
FIRES = {
    "SternaMigrationInError": {'sterna_migrations{status="error"}': "1x120"},
    "SternaPostCopyBroken": {'sterna_migrations{status="recovering"}': "1x120"},
    "SternaRollbackHangs": {'sterna_migrations{status="rolling-back"}': "2x120"},
    "SternaMigrationsWait": {'sterna_migrations{status="queued"}': "1x120"},
    "SternaHostDown": {'sterna_host_state{host="a",state="down"}': "1x120"},
    "SternaHostDegraded": {'sterna_host_state{host="a",state="degraded"}': "1x120"},
    "SternaHostWarns": {'sterna_host_warning{host="a"}': "1x120"},
    "SternaProcessWarns": {"sterna_warning": "1x120"},
    "SternaCertificateExpires": {"sterna_certificate_expiry_timestamp_seconds": f"{3 * DAY}x120"},
    "SternaBusLost": {"sterna_bus_connected": "0x120"},
    "SternaDatabaseDown": {"sterna_database_up": "0x120"},
    "SternaControllerDown": {"sterna_database_up": "_x120"},
    "SternaMigrationsFail": {'sterna_migrations_finished_total{outcome="failed"}': "0+1x120"},
    "SternaOperationLate": {'sterna_operation_late_seconds{operation="o"}': "300x120"},
    "SternaNotificationsStuck": {'sterna_notifications_total{endpoint="pager",result="delivered"}': "5x120"},
    "SternaHeartbeatsRefused": {"sterna_heartbeats_refused_total": "0+1x120"},
    "SternaDeadLetters": {"sterna_dead_letters": "1x120"},
    "SternaAgentUnusable": {"sterna_agent_usable": "0x120"},
    "SternaLibvirtSlow": {"sterna_agent_libvirt_response_seconds": "3x120"},
    "SternaOutboxGrows": {"sterna_agent_outbox_pending": "1x120"},
}


def test_each_alert_has_a_case() -> None:
    assert sorted(FIRES) == sorted(rule["alert"] for rule in rules())


def fired(folder: Path, series: dict[str, str], alerts: list[str]) -> str:
    """What promtool has against exactly these alerts firing after MINUTES; '' for nothing."""
    expected = [{"labels": f'{{alertname="{one}"}}', "value": 1} for one in alerts]
    asked = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{MINUTES}m",
        "exp_samples": expected,
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [asked],
    }
    file = folder / "alerts_test.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    return promtool("test", "rules", file)


def test_nothing_fires_while_all_is_well(tmp_path: Path) -> None:
    assert fired(tmp_path, WELL, []) == ""


@pytest.mark.parametrize("alert", FIRES)
def test_it_fires_and_nothing_else_does(tmp_path: Path, alert: str) -> None:
    assert fired(tmp_path, WELL | FIRES[alert], [alert]) == ""
