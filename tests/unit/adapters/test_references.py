"""What is read of the things that a domain's XML names on its host; and that what libvirt chooses again is not."""

from __future__ import annotations

import pytest
from lxml import etree

from sterna.adapters.libvirt.start_check import without_devices
from sterna.adapters.libvirt.xml.describe import describe
from sterna.adapters.libvirt.xml.listen_addresses import listen_at
from sterna.adapters.libvirt.xml.pages import pages, usual_kib
from sterna.adapters.libvirt.xml.references import references_of
from sterna.domain.model import Vm
from sterna.domain.references import Kind, Reference


def domain(inner: str) -> etree._Element:
    return etree.fromstring(
        f"<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><memory>65536</memory>{inner}</domain>"
    )


def read(inner: str, inactive: str | None = None) -> list[Reference]:
    return list(references_of(domain(inner), None if inactive is None else domain(inactive)))


def devices(inner: str) -> str:
    return f"<devices>{inner}</devices>"


VNC = (
    "<graphics type='vnc' port='{port}' autoport='{auto}'{more}>"
    "<listen type='address' address='10.0.0.1'/></graphics>"
)


@pytest.mark.parametrize(
    ("screen", "ports"),
    [
        (VNC.format(port=-1, auto="yes", more=""), [None]),
        (VNC.format(port=5900, auto="yes", more=""), [None]),
        (VNC.format(port=5907, auto="no", more=""), [5907]),
        (VNC.format(port=5907, auto="no", more=" websocket='5707'"), [5907, 5707]),
        (VNC.format(port=-1, auto="yes", more=" websocket='-1'"), [None]),
        (VNC.format(port=-1, auto="yes", more=" websocket='5707'"), [5707]),
        ("<graphics type='vnc' port='-1' autoport='yes'><listen type='address'/></graphics>", []),
        ("<graphics type='vnc' port='-1' autoport='yes'/>", []),
    ],
)
def test_a_screens_address_and_the_ports_that_were_chosen_by_hand(screen: str, ports: list[int | None]) -> None:
    found = read(devices(screen))
    assert [(ref.kind, ref.name, ref.port) for ref in found] == [(Kind.ADDRESS, "10.0.0.1", port) for port in ports]


def test_what_libvirt_makes_by_itself_is_not_looked_for() -> None:
    quiet = (
        "<serial type='pty'><source path='/dev/pts/3'/></serial><console type='pty' tty='/dev/pts/3'/>"
        "<channel type='unix'><source mode='bind'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        "<channel type='spicevmc'/><parallel type='null'/><serial type='stdio'/>"
        "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><audio id='1' type='none'/>"
        "<interface type='bridge'><source bridge='br0'/></interface><memballoon model='virtio'/>"
    )
    assert (
        read(devices(quiet) + "<seclabel type='none' model='none'/><vcpu placement='auto' cpuset='0-1'>1</vcpu>")
        == []
    )


def test_a_console_that_repeats_its_serial_port_is_one_thing() -> None:
    source = "<source mode='bind' host='10.0.0.1' service='7000'/>"
    found = read(devices(f"<serial type='tcp'>{source}</serial><console type='tcp'>{source}</console>"))
    assert [(ref.kind, ref.port) for ref in found] == [(Kind.ADDRESS, 7000)]


def test_what_only_the_persistent_definition_names_is_cold() -> None:
    kernel = "<os><kernel>/k</kernel></os>"
    found = {(ref.name, ref.cold) for ref in read(kernel, kernel + "<sysinfo><entry file='/f'/></sysinfo>")}
    assert found == {("/k", False), ("/f", True)}


def test_who_is_connected_to_at_a_cold_start_is_not_asked_now() -> None:
    client = devices("<serial type='tcp'><source mode='connect' host='10.0.0.9' service='7'/></serial>")
    assert read("", client) == []
    assert [ref.kind for ref in read(client)] == [Kind.PEER]


def test_paths_in_qemus_own_arguments() -> None:
    given = "if=none,file=/srv/a.img,id=x", "/etc/one", "unix:/run/s.sock,server", "host=10.0.0.1", "relative/path"
    in_json = '{"driver":"file", "filename": "/srv/b.img"}'
    arguments = "".join(f"<qemu:arg value='{value}'/>" for value in (*given, in_json))
    found = read(f"<qemu:commandline>{arguments}<qemu:env name='X' value='/e'/></qemu:commandline>")
    assert [ref.name for ref in found] == ["/srv/a.img", "/etc/one", "/run/s.sock", "/srv/b.img", "/e"]
    assert {ref.kind for ref in found} == {Kind.ARGUMENT}


def test_what_cannot_be_looked_for_is_said() -> None:
    again = "<source mode='connect' host='a' service='1'><reconnect enabled='yes' timeout='1'/></source>"
    inner = "<qemu:commandline><qemu:arg value='-vnc'/></qemu:commandline>" + devices(
        f"<serial type='tcp'>{again}</serial>"
    )
    said = describe(etree.tostring(domain(inner), encoding="unicode")).unjudged
    assert [words.split(" ")[0] for words in said] == ["QEMU's", "serial"]
    assert describe("<domain><devices><serial type='pty'/></devices></domain>").unjudged == ()


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (
            "<qemu:commandline><qemu:env name='A' value='b'/></qemu:commandline>",
            ["environment", "qemu:commandline"],
        ),
        (
            "<qemu:override><qemu:device alias='ua-disk'><qemu:frontend>"
            "<qemu:property name='x-thing' type='string' value='a'/><qemu:property name='rotation' type='remove'/>"
            "</qemu:frontend></qemu:device></qemu:override>",
            ["ua-disk", "x-thing, rotation", "destination's QEMU"],
        ),
        ("<qemu:capabilities><qemu:del capability='blockdev'/></qemu:capabilities>", ["blockdev", "not tried"]),
    ],
)
def test_what_a_definition_says_past_libvirt_is_said(inner: str, words: list[str]) -> None:
    (said,) = said_of(inner)
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    "inner",
    [
        "<qemu:override><qemu:device alias='ua-disk'/></qemu:override>",
        "<qemu:commandline/>",
        "<qemu:capabilities/>",
    ],
)
def test_an_empty_part_says_nothing(inner: str) -> None:
    assert said_of(inner) == ()


def said_of(inner: str) -> tuple[str, ...]:
    return describe(etree.tostring(domain(inner), encoding="unicode")).unjudged


FUNCTION = """<interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:0A'/>
  <source><address type='pci' domain='0' bus='0x3b' slot='2' function='4'/></source>{}</interface>"""
STANDBY = "<interface type='bridge'><mac address='52:54:00:00:00:0a'/><source bridge='br0'/></interface>"


def test_a_virtual_function_without_a_standby_is_said() -> None:
    (said,) = said_of(devices(FUNCTION.format("")))
    assert "52:54:00:00:00:0a" in said and "without a standby" in said and "<teaming>" in said
    assert len(said_of(devices(FUNCTION.format("") + FUNCTION.format("").replace("0A", "0B")))) == 2


@pytest.mark.parametrize(
    "inner",
    [FUNCTION.format("<teaming type='transient' persistent='ua-1'/>"), FUNCTION.format("") + STANDBY, STANDBY],
)
def test_one_with_a_standby_is_not(inner: str) -> None:
    assert said_of(devices(inner)) == ()


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("<os><smbios mode='host'/></os>", "serial numbers of the destination"),
        ("<clock offset='localtime'/>", "destination's time zone"),
        ("<clock offset='variable' basis='localtime' adjustment='7'/>", "destination's time zone"),
        ("<clock offset='timezone' timezone='Europe/Oslo'/>", "Europe/Oslo"),
    ],
)
def test_what_libvirt_takes_from_the_host_that_starts_the_guest_is_said(inner: str, words: str) -> None:
    (said,) = said_of(inner)
    assert words in said


@pytest.mark.parametrize(
    "inner",
    [
        "<os><smbios mode='sysinfo'/></os>",
        "<os><smbios mode='emulate'/></os>",
        "<clock offset='utc'/>",
        "<clock offset='variable' basis='utc' adjustment='7'/>",
    ],
)
def test_what_the_definition_fixes_is_not(inner: str) -> None:
    assert said_of(inner) == ()


CELLS = "<cpu><numa><cell id='0' memory='4' unit='MiB'/><cell id='1' memory='8' unit='MiB'/></numa></cpu>"
HUGE = "<memoryBacking><hugepages>{}</hugepages></memoryBacking>"


@pytest.mark.parametrize(
    ("inner", "needed"),
    [
        ("", []),
        (HUGE.format(""), [(-(-65536 // usual_kib()), usual_kib(), "")]),
        (HUGE.format("<page size='2' unit='M'/>"), [(32, 2048, "")]),
        (HUGE.format("<page size='1' unit='G'/>"), [(1, 1048576, "")]),
        (HUGE.format("<page size='4' unit='KiB'/>"), []),
        (CELLS + HUGE.format("<page size='2' unit='M'/>"), [(6, 2048, "")]),
        (CELLS + HUGE.format("<page size='2' unit='M' nodeset='1'/>"), [(4, 2048, "")]),
        (CELLS + HUGE.format("<page size='2' unit='M'/><page size='1' unit='G' nodeset='1'/>"),
         [(2, 2048, ""), (1, 1048576, "")]),
        (CELLS + HUGE.format("<page size='2' unit='M'/>")
         + "<numatune><memory mode='strict' nodeset='0'/><memnode cellid='1' nodeset='3'/></numatune>",
         [(2, 2048, "0"), (4, 2048, "3")]),
        (HUGE.format("<page size='2' unit='M'/>") + "<numatune><memory mode='preferred' nodeset='0'/></numatune>",
         [(32, 2048, "")]),
        (HUGE.format("<page size='2' unit='M'/>")
         + devices("<memory model='dimm'><target><size unit='KiB'>16384</size><node>0</node></target></memory>"),
         [(32, 2048, "")]),
    ],
)  # fmt: skip
def test_huge_pages_by_size_and_place(inner: str, needed: list[tuple[int, int, str]]) -> None:
    assert list(pages(domain(inner))) == needed


def test_memory_in_huge_pages_does_not_take_from_the_ordinary_one() -> None:
    inner = CELLS + HUGE.format("<page size='2' unit='M' nodeset='1'/>")
    vm = describe(etree.tostring(domain(f"<name>x</name>{inner}"), encoding="unicode"))
    vm = vm.model_copy(update={"references": references_of(domain(inner))})
    assert (vm.memory_bytes, vm.ordinary_bytes) == (64 << 20, 56 << 20)
    assert Vm.model_validate(vm.model_dump(mode="json")).ordinary_bytes == 56 << 20


def test_only_the_named_addresses_are_replaced() -> None:
    xml = domain(
        devices(
            "<graphics type='vnc' listen='10.0.0.1'><listen type='address' address='10.0.0.1'/></graphics>"
            "<graphics type='spice' listen='0.0.0.0'><listen type='address' address='0.0.0.0'/></graphics>"
            "<serial type='udp'><source mode='connect' host='10.0.0.1' service='1'/>"
            "<source mode='bind' host='10.0.0.1' service='2'/></serial>"
            "<rng><backend model='egd' type='tcp'><source mode='bind' host='10.0.0.1' service='3'/></backend></rng>"
        )
    )
    listen_at(xml, {"10.0.0.1": "10.0.0.2"})
    hosts = [element.get("host") for element in xml.iter("source")]
    assert hosts == ["10.0.0.1", "10.0.0.2", "10.0.0.2"]
    assert [g.get("listen") for g in xml.iter("graphics")] == ["10.0.0.2", "0.0.0.0"]
    assert [g.get("address") for g in xml.iter("listen")] == ["10.0.0.2", "0.0.0.0"]


def test_what_has_checks_of_its_own_is_not_translated() -> None:
    xml = "<domain><devices><disk/><interface/><hostdev/><video/><disk/></devices></domain>"
    assert without_devices(xml).replace("\n", "").replace(" ", "") == "<domain><devices><video/></devices></domain>"


def test_the_state_of_a_tpm_in_a_file_needs_its_folder() -> None:
    for kind, kinds in (("file", [Kind.OUTPUT]), ("dir", [])):  # libvirt makes a folder, with what is above it
        source = f"<backend type='emulator'><source type='{kind}' path='/srv/tpm/x'/></backend>"
        found = read(devices(f"<tpm model='tpm-crb'>{source}</tpm>"))
        assert [ref.kind for ref in found] == kinds


def test_nvram_on_a_block_device_does_not_move() -> None:
    nvram = "<os><nvram type='block'><source dev='/dev/vg/vars'/></nvram></os>"
    assert describe(etree.tostring(domain(nvram), encoding="unicode")).immovable == (
        "NVRAM that is not a file (block)",
    )


@pytest.mark.parametrize(
    ("loader", "kinds"),
    [
        ("<loader readonly='yes' type='pflash'>/fw.fd</loader>", []),
        ("<loader readonly='no' type='pflash'>/fw.fd</loader>", ["flash"]),
        ("<loader type='pflash'>/fw.fd</loader>", ["flash"]),
        ("<loader type='rom'>/fw.fd</loader>", []),
        ("<loader>/fw.fd</loader>", []),
    ],
)
def test_firmware_that_the_guest_writes_is_state_and_not_firmware_of_the_host(
    loader: str, kinds: list[str]
) -> None:
    inner = f"<os>{loader}</os>"
    found = describe(etree.tostring(domain(inner), encoding="unicode")).firmware
    assert [state.kind for state in found if state.kind != "save"] == kinds
    assert [ref.kind for ref in read(inner)] == ([] if kinds else [Kind.FIRMWARE])


@pytest.mark.parametrize(
    ("device", "models"),
    [
        ("<disk><source file='/a'>{}</source><target dev='vda'/></disk>", ["selinux"]),
        ("<disk><source file='/a'/><backingStore><source file='/b'>{}</source></backingStore></disk>", []),
        ("<serial type='file'><source path='/a'>{}</source></serial>", ["selinux"]),
        ("<channel type='unix'><source mode='bind' path='/a'>{}</source></channel>", ["selinux"]),
        ("<redirdev type='file'><source path='/a'>{}</source></redirdev>", []),
    ],
)
def test_the_driver_of_a_devices_label_is_needed(device: str, models: list[str]) -> None:
    for label, found in (("selinux", models), ("none", [])):
        refs = read(devices(device.format(f"<seclabel model='{label}' relabel='no'/>")))
        assert [ref.name for ref in refs if ref.kind is Kind.SECURITY] == found


def test_a_fibre_channel_id_needs_the_kernels_file_for_it() -> None:
    path = "/sys/class/fc/fc_udev_device/appid_store"
    found = read("<resource><partition>/machine</partition><fibrechannel appid='web'/></resource>")
    assert [(ref.kind, ref.name) for ref in found] == [(Kind.DEVICE, path)]
    assert read("<resource><partition>/machine</partition></resource>") == []
