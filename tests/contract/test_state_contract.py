"""What libvirt removes with a definition: NVRAM and TPM state only where that is asked for."""

from collections.abc import Iterator

import pytest

from sterna.lab import Lab
from tests.contract.remote import adapters_on

pytestmark = pytest.mark.lab

UUID = "6f0a3c3e-0000-4000-8000-00000000000a"
NVRAM, TPM = "/var/lib/libvirt/qemu/nvram/x_VARS.fd", f"/var/lib/libvirt/swtpm/{UUID}"
DOMAIN = f"""<domain type='qemu'><name>x</name><uuid>{UUID}</uuid><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='q35'>hvm</type>
<loader readonly='yes' type='pflash'>/usr/share/seabios/bios-256k.bin</loader>
NVRAM</os><features><acpi/></features>
<devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices></domain>"""
FORMS = {"text": f"<nvram>{NVRAM}</nvram>", "file": f"<nvram type='file'><source file='{NVRAM}'/></nvram>"}


@pytest.fixture(params=FORMS)
def host(request: pytest.FixtureRequest, contract_lab: Lab) -> Iterator[str]:
    host = contract_lab.host("host1")
    host.run(["sh", "-c", f"mkdir -p $(dirname {NVRAM}) {TPM}/tpm2; echo v >{NVRAM}; echo t >{TPM}/tpm2/state"])
    host.run(["sh", "-c", "cat >/run/x.xml"], stdin=DOMAIN.replace("NVRAM</os>", f"{FORMS[request.param]}</os>"))
    host.virsh("define", "/run/x.xml")
    yield "host1"
    host.virsh("undefine", "x", "--keep-nvram", check=False)
    host.run(["rm", "-rf", NVRAM, TPM])


@pytest.mark.parametrize("remove", [(), ("nvram",), ("tpm",), ("nvram", "tpm", "save")])
async def test_state_goes_only_as_told(host: str, contract_lab: Lab, remove: tuple[str, ...]) -> None:
    async with adapters_on(contract_lab, host) as there:
        vm = await there.hypervisor.vm(UUID)
        assert {s.kind: s.path for s in vm.firmware if s.kind != "save"} == {"nvram": NVRAM, "tpm": TPM}
        assert await there.hypervisor.undefine(UUID, None, remove=remove)
    left = contract_lab.host(host).run(["sh", "-c", f"ls -d {NVRAM} {TPM}/tpm2/state 2>/dev/null"], check=False)
    kept = {"nvram": NVRAM, "tpm": f"{TPM}/tpm2/state"}
    assert left.stdout.split() == sorted(path for kind, path in kept.items() if kind not in remove)
