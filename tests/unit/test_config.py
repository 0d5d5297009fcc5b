from __future__ import annotations

from pathlib import Path

import pytest
from ovs import socket_util

from sterna.bootstrap.controller import capacity_of, hooks_of
from sterna.config import AgentSettings, ControllerSettings, NetworkSettings, load
from sterna.config.traces import TracesSettings
from sterna.controller.operations.observing import Capacity
from sterna.domain.errors import BadRequest

AGENT = """
host = "host1"
state_dir = "/srv/state"
[bus]
url = "nats://10.0.0.9:4222"
[migration]
address = "10.0.0.1"
"""


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def test_what_operations_fill_hosts_with(tmp_path: Path) -> None:
    plain = load(ControllerSettings, file(tmp_path, "")).fleet
    assert capacity_of(plain) == Capacity() and not plain.rebalance
    assert load(ControllerSettings, file(tmp_path, "[fleet]\nrebalance = true")).fleet.rebalance
    text = "[fleet]\nvcpus_per_cpu = 4\nkept_memory_mib = 8192\nspare_hosts = 1\npreparing = 8"
    assert capacity_of(load(ControllerSettings, file(tmp_path, text)).fleet) == Capacity(
        vcpus_per_cpu=4.0,
        kept_memory_bytes=8 * 2**30,
        spare_hosts=1,
        preparing=8,
    )
    for wrong in ("vcpus_per_cpu = 0", "kept_memory_mib = -1", "spare_hosts = -1", "preparing = 0", "spare = 1"):
        with pytest.raises(BadRequest, match="fleet"):
            load(ControllerSettings, file(tmp_path, f"[fleet]\n{wrong}"))


def test_what_rolling_operations_may_ask_for(tmp_path: Path) -> None:
    hooks = hooks_of(load(ControllerSettings, file(tmp_path, "")).fleet)
    assert not hooks.has_command() and hooks.against("https://jobs.example/")
    text = (
        '[fleet]\nbetween = ["/usr/local/bin/reboot"]\nwebhooks = ["https://jobs.example/a"]\nwebhook_token = "s3"'
    )
    settings = load(ControllerSettings, file(tmp_path, text)).fleet
    hooks = hooks_of(settings)
    assert hooks.has_command() and not hooks.against("https://jobs.example/a/b")
    assert "s3" not in repr(settings)
    for wrong in (
        'between = ["reboot"]',
        'between = "/bin/x"',
        'webhooks = ["jobs.example"]',
        'webhooks = ["http://a/?b"]',
    ):
        with pytest.raises(BadRequest, match="fleet"):
            load(ControllerSettings, file(tmp_path, f"[fleet]\n{wrong}"))


@pytest.mark.parametrize("around", ["{}", "{}\n", " {}\t", "\n{}\r\n"])
def test_a_token_is_taken_without_what_an_editor_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    monkeypatch.setenv("STERNA_FLEET__WEBHOOK_TOKEN", around.format("s3cret"))
    token = load(ControllerSettings, file(tmp_path, "")).fleet.webhook_token
    assert token is not None and token.get_secret_value() == "s3cret"


@pytest.mark.parametrize("token", ["", " ", "s3 cret", "s3\ncret", "s3crét", "s3\x7fcret", "s3cret\x01"])
def test_one_that_no_header_can_hold_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("STERNA_FLEET__WEBHOOK_TOKEN", token)
    with pytest.raises(BadRequest, match=r"fleet\.webhook_token") as raised:
        load(ControllerSettings, file(tmp_path, ""))
    assert "s3" not in raised.value.message


def test_a_file_and_the_defaults(tmp_path: Path) -> None:
    settings = load(AgentSettings, file(tmp_path, AGENT))
    assert (settings.host, settings.state_dir, settings.bus.url) == (
        "host1",
        Path("/srv/state"),
        "nats://10.0.0.9:4222",
    )
    assert (
        settings.migration.uri_template.format(address=settings.migration.address) == "qemu+tls://10.0.0.1/system"
    )
    assert settings.test.fault_file is None
    assert load(ControllerSettings, file(tmp_path, "")).listen == ""


def test_the_environment_wins_and_reaches_into_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNA_BUS__URL", "nats://elsewhere:1")
    monkeypatch.setenv("STERNA_BUS__PASSWORD", "s3cret")
    monkeypatch.setenv("STERNA_API", "http://ignored")
    monkeypatch.setenv("STERNA_TOKEN", "ignored")
    monkeypatch.setenv("STERNA_ACCESS__GROUP", "migrators")
    assert load(ControllerSettings, file(tmp_path, "")).access.group == "migrators"
    monkeypatch.delenv("STERNA_ACCESS__GROUP")
    settings = load(AgentSettings, file(tmp_path, AGENT))
    assert settings.bus.url == "nats://elsewhere:1"
    assert "s3cret" not in repr(settings)
    assert settings.bus.password is not None and settings.bus.password.get_secret_value() == "s3cret"


@pytest.mark.parametrize(
    "more",
    [
        "insecure = true\nuri_template = 'qemu+tcp://{address}/system'\ntransport = 'tcp'\n",
        "uri_template = 'qemu://[{address}]/system'\n",  # libvirt speaks TLS there
        "uri_template = 'qemu+ssh://root@{address}/system'\n",
        "uri_template = 'qemu+tls://{address}:16515/system?no_verify=0'\ntransport = 'ssh'\n",
    ],
)
def test_what_encrypts_is_taken_and_so_is_what_an_operator_calls_insecure(tmp_path: Path, more: str) -> None:
    assert load(AgentSettings, file(tmp_path, AGENT + more)).migration.insecure == more.startswith("insecure")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (AGENT + "[volumes]\ninitiatr = 'x'\n", "volumes.initiatr"),
        ("colour = 'blue'\n" + AGENT, "colour"),
        ("host = 'a'\n", "migration"),
        (AGENT.replace("host1", "a.b"), "host"),
        ("host = \n", "not TOML"),
        (AGENT.replace("nats://10.0.0.9:4222", "10.0.0.9"), "bus.url.*nats://host:4222"),
        (AGENT.replace("nats://10.0.0.9:4222", "nats://10.0.0.9:port"), "bus.url"),
        (AGENT.replace("nats://10.0.0.9:4222", "nats://me:s3cret@10.0.0.9:4222"), "bus.url.*their own keys"),
        (
            AGENT + "[identity]\nenrol = 'sterna'\nserver = 'http://10.0.0.1'\n",
            "identity.server.*https://10.0.0.1:8774",
        ),
        (AGENT + "uri_template = 'qemu+tls://{host}/system'\n", "migration.uri_template.*{address}"),
        (AGENT + "ssh_uri_template = 'qemu+ssh://root@h/system'\n", "migration.ssh_uri_template"),
        (AGENT + "uri_template = 'qemu+tls://{address.name}/system'\n", "migration.uri_template.*{address}"),
        (AGENT + "uri_template = 'qemu+tls://{address[name]}/system'\n", "migration.uri_template.*{address}"),
        (AGENT + "uri_template = 'qemu+tcp://{address}/system'\n", "migration.*qemu[+]tls.*insecure = true"),
        (AGENT + "uri_template = 'qemu+tls://{address}/system?no_verify=1'\n", "migration.*insecure = true"),
        (AGENT + "uri_template = 'qemu+ext://{address}/system?command=x'\n", "migration.*insecure = true"),
        (AGENT + "ssh_uri_template = 'qemu+tcp://{address}/system'\n", "migration.*ssh_uri_template.*neither SSH"),
        (AGENT + "transport = 'tcp'\n", "migration.*transport.*insecure = true"),
        (AGENT.replace("10.0.0.1", "my host"), "migration.address"),
        (AGENT + "[bus.tls]\ncert_file = '/c.pem'\n", "bus.tls.*ca_file"),
        (AGENT + "[network]\nvif_plugging_timeout_s = 3600\n", "vif_plugging_timeout_s"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        load(AgentSettings, file(tmp_path, text))


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadRequest, match="not TOML"):
        load(AgentSettings, path)


def test_a_variable_that_is_no_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNA_TRAITS", "a,b")
    with pytest.raises(BadRequest, match="traits") as caught:
        load(AgentSettings, file(tmp_path, AGENT))
    assert "JSON" in caught.value.fix


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.0.0.1:99999"])
def test_a_port_that_is_none_is_named(tmp_path: Path, listen: str) -> None:
    with pytest.raises(BadRequest, match=r"listen.*65535"):
        load(ControllerSettings, file(tmp_path, f"listen = '{listen}'\n"))


TOKEN = '[[access.tokens]]\nname = "ci"\nrole = "viewer"\nsha256 = "' + "0" * 64 + '"\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[access]\nkey_file = '/k.pem'\n", "access.*cert_file"),
        ("[access]\ngroup_role = 'king'\n", "access.group_role"),
        (TOKEN + TOKEN, "access.*same name"),
        (TOKEN.replace("00", "0g", 1), "access.tokens.0.sha256"),
        (TOKEN.replace("ci", "c i"), "access.tokens.0.name"),
    ],
)
def test_wrong_settings_of_the_access_are_named(tmp_path: Path, text: str, named: str) -> None:
    assert load(ControllerSettings, file(tmp_path, TOKEN)).access.tokens[0].name == "ci"
    with pytest.raises(BadRequest, match=named):
        load(ControllerSettings, file(tmp_path, text))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no settings file"):
        load(ControllerSettings, tmp_path / "none.toml")


CLOUD = """
[volumes]
provider = "cinder"
[openstack]
auth_url = "http://10.0.0.1:5000/v3"
username = "sterna"
"""


def test_a_provider_needs_to_know_its_cloud(tmp_path: Path) -> None:
    with pytest.raises(BadRequest) as caught:
        load(AgentSettings, file(tmp_path, AGENT + CLOUD))
    assert "openstack.password" in caught.value.message
    assert "auth_url" not in caught.value.message
    settings = load(AgentSettings, file(tmp_path, AGENT + CLOUD + "password = 's3cret'\n"))
    assert settings.needs_cloud
    assert "s3cret" not in repr(settings)
    with pytest.raises(BadRequest) as caught:
        load(AgentSettings, file(tmp_path, AGENT + "[network]\nprovider = 'nova'\n"))
    assert "network.provider" in caught.value.message


def test_without_a_provider_no_cloud_is_asked(tmp_path: Path) -> None:
    assert not load(AgentSettings, file(tmp_path, AGENT)).needs_cloud


@pytest.mark.parametrize(
    ("remotes", "fine"),
    [
        ("", True),
        ("unix:/run/openvswitch/db.sock", True),
        ("tcp:10.0.0.1:6640", True),
        ("tcp:10.0.0.1", True),
        ("tcp:[fd00::1]:6640, ssl:10.0.0.2:6640", True),
        ("tcp:ovs.example:6640", False),
        ("tcp:10.0.0.1:6640,tcp:ovs:6640", False),
        ("ssl:", False),
    ],
)
def test_a_name_of_an_ovsdb_server_is_refused(remotes: str, fine: bool) -> None:
    """Open vSwitch's library would refuse it at each action, as if the server were away."""
    if fine:
        assert NetworkSettings(ovsdb=remotes).ovsdb == remotes
    else:
        with pytest.raises(ValueError, match="accepts no host names"):
            NetworkSettings(ovsdb=remotes)
        with pytest.raises(ValueError, match="bad peer name format"):
            socket_util.inet_parse_active(remotes.rsplit(",", maxsplit=1)[-1].split(":", 1)[1], 6640)


def test_how_long_records_are_kept(tmp_path: Path) -> None:
    keep = load(ControllerSettings, file(tmp_path, "")).keep
    assert (keep.migrations_days, keep.operations_days, keep.log_days) == (90, 90, 365)
    keep = load(ControllerSettings, file(tmp_path, "[keep]\nmigrations_days = 0\nlog_days = 31\n")).keep
    assert (keep.migrations_days, keep.log_days) == (0, 31)
    for wrong in ("migrations_days = 1", "operations_days = -1", "log_days = 30", "log_days = 1000000000"):
        with pytest.raises(BadRequest, match="is neither 0"):
            load(ControllerSettings, file(tmp_path, f"[keep]\n{wrong}\n"))


def test_where_traces_are_sent(tmp_path: Path) -> None:
    def loaded(text: str) -> TracesSettings:
        return load(ControllerSettings, file(tmp_path, f"[traces]\n{text}")).traces

    assert loaded("").endpoint == ""
    for base in ("http://collector:4318", "http://collector:4318/"):
        assert loaded(f'endpoint = "{base}"').address.url == "http://collector:4318/v1/traces"
    assert loaded('endpoint = "https://otlp.example/a/b"').address.url == "https://otlp.example:443/a/b"
    headers = 'headers = {Authorization = "Bearer s3cret"}'
    for server in ("https://otlp.example", "http://127.0.0.1:4318", "http://[::1]:4318", "http://localhost:4318"):
        settings = loaded(f'endpoint = "{server}"\n{headers}')
        assert "s3cret" not in repr(settings)
        assert settings.headers["Authorization"].get_secret_value() == "Bearer s3cret"
    for wrong, why in (
        ('endpoint = "collector:4318"', "traces.endpoint"),
        ('endpoint = "http://a:s3cret@collector"', "a user or a password"),
        (f'endpoint = "http://collector:4318"\n{headers}', "unencrypted"),
        ('headers = {"a b" = "s3cret"}', "traces.headers"),
        ('headers = {Authorization = "s3cret\\n"}', "line break"),
        ('headers = {Authorization = ""}', "is empty"),
        ("sampling = 1", "traces.sampling"),
    ):
        with pytest.raises(BadRequest, match=why) as raised:
            loaded(wrong)
        assert "s3cret" not in str(raised.value)
