"""A real Prometheus, configured as docs/how-to/monitor.md says, scrapes a controller and an agent as they are in
service, reads the shipped alert rules, and a real Alertmanager receives what they say."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import urlsplit

import httpx2
import yaml

from sterna.adapters.identity.authority import Authority
from sterna.domain.trust.certificates import VALID
from sterna.kit.digests import digest_of
from tests.contract.guarded import Guarded
from tests.contract.in_service import agent_settings, free_port, running, serving, sterna
from tests.rights import CONTROLLER, HOST1
from tests.unit.adapters.identities import join
from tests.unit.alert_rules import RULES, rules

PAGE = Path(__file__).parents[2] / "docs/how-to/monitor.md"
TOKEN = "the-token-of-agents-in-this-test"


def documented(folder: Path, targets: dict[str, str], alertmanager: str) -> dict[str, Any]:
    """The configuration on the page, with this test's files and addresses, and no patience. `targets`: by job."""
    page = PAGE.read_text().replace("/etc/prometheus/", f"{folder}/")
    page = page.replace("/usr/share/sterna/prometheus/", f"{RULES.parent}/").replace("127.0.0.1:9093", alertmanager)
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [],
    }
    for block in re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        part = yaml.safe_load(block)
        config["scrape_configs"] += part.pop("scrape_configs", [])
        config |= part
    assert {job["job_name"] for job in config["scrape_configs"]} == targets.keys()
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return config


@asynccontextmanager
async def server(
    folder: Path, program: str, config: dict[str, Any], *options: str
) -> AsyncIterator[httpx2.AsyncClient]:
    """A program of Debian's package of that name, and a client for it. A test run that is killed takes it along."""
    tool, port = which(program), free_port()
    assert tool is not None, f"{program} is not installed (Debian: apt-get install {program})"
    file = folder / f"{program}.yml"
    file.write_text(json.dumps(config))
    given = (f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}", *options)
    written = folder / f"{program}.log"
    with written.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", tool, *given, stdout=log, stderr=log
        )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
            serves = asyncio.create_task(until(http, "/-/ready", lambda answer: True))
            ends = asyncio.create_task(process.wait())
            await asyncio.wait({serves, ends}, return_when=asyncio.FIRST_COMPLETED)
            serves.cancel()
            assert process.returncode is None, written.read_text()
            yield http
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until(http: httpx2.AsyncClient, path: str, is_so: Callable[[Any], bool]) -> Any:
    """What is answered there, once it is so."""
    async with asyncio.timeout(120):
        while True:
            try:
                found = await http.get(path)
                answer = found.json() if "json" in found.headers.get("Content-Type", "") else found.text
                if found.status_code == 200 and is_so(answer):
                    return answer
            except httpx2.TransportError:
                pass  # it starts still
            await asyncio.sleep(0.1)


def all_up(answer: Any) -> bool:
    targets = answer["data"]["activeTargets"]
    return len(targets) == 2 and all(target["health"] == "up" for target in targets)


def all_evaluated(answer: Any) -> bool:
    found = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    return len(found) == len(rules()) and all(rule["health"] == "ok" for rule in found)


def agent_with_an_old_certificate(guarded: Guarded, port: int) -> Path:
    """Its settings. The certificate is valid for six more days, and nobody renews it."""
    earlier = datetime.now(UTC) - VALID + timedelta(days=6)
    join(Authority.open(guarded.folder / "ca", lambda: earlier), HOST1, guarded.folder / "own")
    metrics = f'[metrics]\nlisten = "127.0.0.1:{port}"\ntoken_sha256 = "{digest_of(TOKEN)}"\n'
    return agent_settings(guarded, guarded.folder / "own", more=metrics)


async def scraping_token(guarded: Guarded, url: str) -> str:
    """As on the page, but from elsewhere."""
    ca = str(guarded.folder / "ca/ca.crt")
    code, word, output = await sterna(
        "token", "create", "prometheus", "--role", "viewer", "--days", 365, "--api", url,
        STERNA_TOKEN="of-this-test", STERNA_CA_FILE=ca,
    )  # fmt: skip
    assert code == 0, output
    return word.strip()


async def test_an_alert_of_a_scraped_agent_arrives(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    guarded.enrol(CONTROLLER)
    port = free_port()
    agent = agent_with_an_old_certificate(guarded, port)
    await guarded.start()
    receiver = {"route": {"receiver": "nobody", "group_wait": "0s"}, "receivers": [{"name": "nobody"}]}
    try:
        async with (
            serving(guarded) as url,
            running("agent", agent),
            server(tmp_path, "prometheus-alertmanager", receiver, f"--storage.path={tmp_path}/alerts",
                   "--cluster.listen-address=") as alertmanager,
        ):  # fmt: skip
            (tmp_path / "sterna.token").write_text(await scraping_token(guarded, url))
            (tmp_path / "sterna-agents.token").write_text(TOKEN)
            (tmp_path / "sterna-ca.crt").write_bytes(guarded.authority.pem)
            targets = {"sterna": urlsplit(url).netloc, "sterna-agents": f"127.0.0.1:{port}"}
            config = documented(tmp_path, targets, alertmanager.base_url.netloc.decode())
            async with server(
                tmp_path, "prometheus", config, f"--storage.tsdb.path={tmp_path}/series"
            ) as prometheus:
                await until(prometheus, "/api/v1/targets", all_up)
                await until(prometheus, "/api/v1/rules", all_evaluated)
                query = "/api/v1/query?query=sterna_build_info"
                built = await until(prometheus, query, lambda answer: len(answer["data"]["result"]) == 2)
                found = await until(alertmanager, "/api/v2/alerts", bool)
    finally:
        await guarded.end()
    processes = {(one["metric"]["job"], one["metric"]["process"]) for one in built["data"]["result"]}
    assert processes == {("sterna", "controller"), ("sterna-agents", "agent")}
    (alert,) = found
    assert alert["labels"]["alertname"] == "SternaCertificateExpires"
    assert alert["labels"]["severity"] == "critical" and alert["labels"]["instance"] == targets["sterna-agents"]
    assert "expires in 5d 23h" in alert["annotations"]["summary"]
