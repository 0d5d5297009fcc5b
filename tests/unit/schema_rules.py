"""Every place of libvirt's domain schema that can hold a name, a path, an address or a number: who judges it.

`schema_places.py` lists the places. `RULES` are read from above: the first that fits a place is its class.
`test_schema.py` proves it: a definition with a made-up value at the place must be read, changed or refused by the
code that is named. `schema_page.py` writes the rules into docs/reference/definitions.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from sterna.domain.references import Kind


class Verdict(StrEnum):
    """What becomes of a place."""

    CHECKED = "checked"
    """The destination must have it."""
    TRANSLATED = "translated"
    """What only the source has becomes the destination's."""
    REFUSED = "refused"
    """Such a VM never moves."""
    HARMLESS = "harmless"


@dataclass(frozen=True)
class Rule:
    """The class of the places that a pattern fits: `*` is within one step, `**` any steps, `{a,b}` one of these."""

    pattern: str
    verdict: Verdict
    by: str
    """A `Kind`, or a module of `src/sterna`; of what is harmless, why."""

    def fits(self, place: str) -> bool:
        """Does it?"""
        return _regex(self.pattern).fullmatch(place) is not None


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    text = re.sub(r"\\{(.*?)\\}", lambda m: "(?:" + m[1].replace(",", "|") + ")", text)
    return re.compile(text)


def _rules(verdict: Verdict, by: str, *patterns: str) -> tuple[Rule, ...]:
    return tuple(Rule(pattern, verdict, by) for pattern in patterns)


def _checked(by: str, *patterns: str) -> tuple[Rule, ...]:
    return _rules(Verdict.CHECKED, by, *patterns)


def _refused(by: str, *patterns: str) -> tuple[Rule, ...]:
    return _rules(Verdict.REFUSED, by, *patterns)


def _harmless(why: str, *patterns: str) -> tuple[Rule, ...]:
    return _rules(Verdict.HARMLESS, why, *patterns)


CHARDEV = "devices/{serial,parallel,console,channel,redirdev,smartcard,rng/backend}"
DISK = "devices/disk{,/mirror,/backingStore,/mirror/backingStore}"
SOURCE = DISK + "{/source,/source/dataStore/source}"
DESCRIBE = "adapters/libvirt/xml/describe.py"

RULES: tuple[Rule, ...] = (
    # the guest's own
    *_harmless(
        "the guest's own bus",
        "devices/*/address/@*",
        "devices/*/address/zpci/@*",
        "devices/*/acpi/@index",
        "devices/memory/target/address/@base",
    ),
    *_harmless(
        "a name within the definition",
        "**/alias/@name",
        "devices/*/boot/@{order,loadparm}",
        "override/device/@alias",
        "override/device/frontend/property/@name",
    ),
    *_harmless("a unit of a number", "**/@unit"),
    # boot
    *_checked(Kind.FILE, "os/{kernel,initrd,dtb,shim}", "os/acpi/table", "sysinfo/entry/@file"),
    *_checked(Kind.FIRMWARE, "os/loader", "devices/interface/rom/@file"),
    *_checked(Kind.PRESENT, "os/nvram/@template"),
    *_checked(Kind.OUTPUT, "os/nvram", "os/nvram/source/@file"),
    *_refused(DESCRIBE, "os/nvram/source/**"),
    *_checked("adapters/libvirt/xml/references.py", "capabilities/*/@capability"),
    *_checked("adapters/libvirt/xml/checks.py", "os/type/@machine", "devices/emulator"),
    *_harmless(
        "given to the guest as it is",
        "os/cmdline",
        "os/bios/@rebootTimeout",
        "os/bootmenu/@timeout",
        "sysinfo/{bios,system,baseBoard,chassis,oemStrings}/entry",
        "sysinfo/entry",
        "sysinfo/entry/@name",
    ),
    *_harmless(
        "of containers or other hypervisors, which libvirt's QEMU driver does not take",
        "os/{init,initarg,initdir,initenv,inituser,initgroup,root}",
        "os/initenv/@name",
        "bootloader",
        "bootloader_args",
        "idmap/{uid,gid}/@*",
        "namespace/*/@value",
        "datacenterpath",
        "features/xen/passthrough/@mode",
        "devices/interface/guest/@*",
        "devices/interface/backenddomain/@name",
        "devices/disk/backenddomain/@name",
        "devices/hostdev/{ip,route}/@*",
        "devices/controller/@max*",
        "devices/hostdev/source/{block,char,interface}",
    ),
    # screens
    *_rules(Verdict.TRANSLATED, Kind.ADDRESS, "devices/graphics/@listen", "devices/graphics/listen/@address"),
    *_checked(Kind.ADDRESS, "devices/graphics/@{port,tlsPort,websocket}"),
    *_checked(Kind.SOCKET, "devices/graphics/@socket", "devices/graphics/listen/@socket"),
    *_checked(Kind.NETWORK, "devices/graphics/listen/@network"),
    *_checked(Kind.DEVICE, "devices/graphics/gl/@rendernode", "devices/video/model/acceleration/@rendernode"),
    *_checked(Kind.SERVER, "devices/graphics/@{address,display}"),
    *_checked(Kind.PRESENT, "devices/graphics/@xauth"),
    *_harmless(
        "of the screen itself",
        "devices/graphics/@{keymap,passwd,passwdValidTo,username}",
        "devices/{graphics,sound}/audio/@id",
        "devices/video/model/@*",
        "devices/video/model/resolution/@*",
    ),
    # character devices
    *_rules(Verdict.TRANSLATED, Kind.ADDRESS, CHARDEV + "/source/@host"),
    *_checked(Kind.ADDRESS, CHARDEV + "/source/@service"),
    *_checked(Kind.SOCKET, CHARDEV + "/source/@path"),
    *_checked(Kind.OUTPUT, CHARDEV + "/log/@file"),
    *_harmless(
        "a choice of the source",
        CHARDEV + "/source/@{mode,channel,master,slave}",
        CHARDEV + "/source/reconnect/@*",
        "devices/{serial,console,parallel,channel}/@tty",
    ),
    *_checked(Kind.SECURITY, "devices/{serial,parallel,console,channel}/source/seclabel/@model"),
    *_harmless(
        "applied to the file by the destination's libvirt, or left out",
        CHARDEV + "/source/seclabel/@model",
        CHARDEV + "/source/seclabel/label",
    ),
    *_harmless("where the guest sees it", "devices/{serial,parallel,console,channel,redirdev,smartcard}/target/@*"),
    *_refused(DESCRIBE, "devices/smartcard/{certificate,database}"),
    *_checked(Kind.DEVICE, "devices/rng/backend"),
    *_harmless("a rate", "devices/rng/rate/@*"),
    # NICs
    *_checked(Kind.FILTER, "devices/interface/filterref/@filter"),
    *_harmless("of the filter, which both hosts have", "devices/interface/filterref/parameter/@*"),
    *_checked(Kind.NETWORK, "devices/interface/source/@network"),
    *_harmless(
        "of the network, which both hosts have; libvirt takes the default for a group that is missing",
        "devices/interface/source/@portgroup",
    ),
    *_checked(Kind.DEVICE, "devices/interface/backend/@{tap,vhost}"),
    *_checked(Kind.PRESENT, "devices/interface/{script,downscript}/@path"),
    *_rules(
        Verdict.TRANSLATED,
        "adapters/vif/plugs.py",
        "devices/interface/source/@{bridge,dev,mode}",
        "devices/interface/source/address/@*",
        "devices/interface/target/@dev",
    ),
    *_refused(
        "domain/plugs.py",
        "devices/interface/source/**",
        "devices/interface/portForward/**",
        "devices/interface/backend/@logFile",
        "devices/interface/{ip,route}/@*",
    ),
    *_harmless(
        "said again to the switch or the kernel of the destination",
        "devices/interface/virtualport/parameters/@*",
        "devices/interface/vlan/tag/@id",
        "devices/interface/bandwidth/@classID",
        "devices/interface/bandwidth/{inbound,outbound}/@*",
        "devices/interface/mac/@*",
        "devices/interface/mtu/@size",
        "devices/interface/tune/sndbuf",
        "devices/interface/coalesce/rx/frames/@max",
        "devices/interface/teaming/@persistent",
    ),
    *_harmless("of the device the guest sees", "devices/interface/{model,driver}/@*"),
    # disks
    *_checked("adapters/files/storage.py", SOURCE + "/@file", "devices/disk/mirror/@file"),
    *_checked(Kind.PRESENT, SOURCE + "/config/@file"),
    *_checked(Kind.SERVER, SOURCE + "/reservations/source/@path"),
    *_rules(
        Verdict.TRANSLATED,
        "adapters/volumes/tgt.py",
        SOURCE + "/@name",
        SOURCE + "/host/@{name,port}",
        SOURCE + "/initiator/iqn/@name",
    ),
    *_rules(
        Verdict.TRANSLATED,
        "migration/secrets.py",
        DISK + "{,/source,/source/dataStore/source}/auth/**",
        DISK + "{,/source,/source/dataStore/source}/encryption/secret/@*",
    ),
    *_harmless(
        "how it is encrypted, not with what",
        DISK + "{,/source,/source/dataStore/source}/encryption/{cipher,ivgen}/@*",
    ),
    *_refused(
        "agent/source_checks.py",
        SOURCE + "/@{dev,dir,volume,pool,path,namespace,query,tlsHostname}",
        SOURCE + "/address/@*",
        SOURCE + "/{cookies,identity,knownHosts}/**",
        SOURCE + "/host/@socket",
        SOURCE + "/snapshot/@name",
    ),
    *_refused(DESCRIBE, SOURCE + "/@fdgroup"),
    *_refused("agent/vm_checks.py", "devices/disk/source/slices/slice/@*"),
    *_harmless("of a file that both hosts see", SOURCE + "/slices/slice/@*"),
    *_harmless(
        "a number or how to wait, within the definition",
        SOURCE + "/@index",
        DISK + "/@index",
        SOURCE + "{,/reservations/source}/reconnect/@*",
        SOURCE + "/{readahead,timeout}/@*",
        "devices/disk**/metadata_cache/max_size",
    ),
    *_checked(Kind.SECURITY, "devices/disk/source/seclabel/@model"),
    *_harmless(
        "applied to the file by the destination's libvirt, or left out",
        SOURCE + "/seclabel/@model",
        SOURCE + "/seclabel/label",
    ),
    *_harmless(
        "of the device the guest sees, or its limits",
        "devices/disk/{blockio,geometry,target,driver}/@*",
        "devices/disk/{serial,wwn,vendor,product}",
        "devices/disk/iotune/*",
        "devices/disk/driver/iothreads/iothread/@id",
        "devices/disk/driver/iothreads/iothread/queue/@id",
        "devices/disk/throttlefilters/throttlefilter/@group",
        "throttlegroups/throttlegroup/*",
    ),
    # devices of the host
    *_refused(
        DESCRIBE,
        "devices/hostdev/**",
        "devices/filesystem/**",
        "devices/shmem/**",
        "devices/memory/source/path",
        "devices/input/source/@*",
        "devices/tpm/backend/device/@path",
        "launchSecurity/*",
    ),
    *_checked(Kind.SECRET, "devices/tpm/backend/encryption/@secret"),
    *_checked(Kind.SERVER, "devices/tpm/backend/source/@path"),
    *_harmless("of the emulated TPM", "devices/tpm/backend/@debug", "devices/tpm/backend/profile/@*"),
    *_checked(Kind.SERVER, "devices/audio/@serverName"),
    *_checked(Kind.PRESENT, "devices/audio/@runtimeDir"),
    *_checked(Kind.DEVICE, "devices/audio/{input,output}/@dev"),
    *_harmless("opened when there is sound; without it the guest goes on", "devices/audio/@path"),
    *_harmless(
        "names and numbers that the sound's server gives a meaning",
        "devices/audio/@*",
        "devices/audio/{input,output}/@*",
        "devices/audio/{input,output}/settings/@*",
        "devices/sound/@streams",
    ),
    *_checked(Kind.OUTPUT, "devices/pstore/path"),
    *_checked(Kind.CID, "devices/vsock/cid/@address"),
    *_harmless(
        "read by a lock manager only, whose leases are on storage that both hosts see",
        "devices/lease/{key,lockspace}",
        "devices/lease/target/@*",
    ),
    *_harmless(
        "of the device the guest sees",
        "devices/controller/@{index,ports,vectors}",
        "devices/controller/{driver,target,master}/@*",
        "devices/controller/{pcihole64,target/node}",
        "devices/controller/driver/iothreads/iothread/@id",
        "devices/memballoon/stats/@period",
        "devices/controller/driver/iothreads/iothread/queue/@id",
        "devices/iommu/driver/@aw_bits",
        "devices/crypto/backend/@queues",
        "devices/redirfilter/usbdev/@*",
        "devices/pstore/size",
        "devices/memory/target/{block,current,node,requested,size,label/size}",
        "devices/memory/uuid",
        "devices/memory/source/alignsize",
    ),
    # CPUs, memory, nodes
    *_checked(Kind.CPUS, "vcpu/@cpuset", "cputune/{vcpupin,emulatorpin,iothreadpin}/@cpuset"),
    *_checked(Kind.NODES, "numatune/{memory,memnode}/@nodeset", "devices/memory/source/nodemask"),
    *_checked(Kind.PAGES, "memoryBacking/hugepages/page/@{size,nodeset}", "devices/memory/source/pagesize"),
    *_checked(Kind.CACHE, "cputune/{cachetune,memorytune}/**"),
    *_checked("agent/source_checks.py", "memory", "currentMemory", "maxMemory", "maxMemory/@slots"),
    *_checked(
        "adapters/libvirt/inventory.py",
        "cpu/model",
        "cpu/vendor",
        "cpu/feature/@name",
        "cpu/maxphysaddr/@*",
        "name",
        "uuid",
    ),
    *_checked(Kind.DEVICE, "blkiotune/device/path"),
    *_harmless(
        "numbers of the guest's own CPUs, cells and threads",
        "vcpu",
        "vcpu/@current",
        "vcpus/vcpu/@{id,order}",
        "cputune/{vcpupin,iothreadpin}/@{vcpu,iothread}",
        "cputune/*sched/@*",
        "numatune/memnode/@cellid",
        "iothreads",
        "iothreadids/iothread/@*",
        "iothreadids/iothread/poll/@*",
        "defaultiothread/@*",
        "cpu/numa/cell/@*",
        "cpu/numa/cell/distances/sibling/@*",
        "cpu/numa/cell/cache/@level",
        "cpu/numa/cell/cache/{line,size}/@value",
        "cpu/numa/interconnects/{latency,bandwidth}/@*",
        "cpu/topology/@*",
        "cpu/model/@vendor_id",
    ),
    *_harmless(
        "limits and weights, which every host can set",
        "cputune/{shares,*period,*quota}",
        "blkiotune/weight",
        "blkiotune/device/*",
        "memtune/*",
        "memoryBacking/allocation/@threads",
    ),
    *_harmless(
        "of the machine the guest sees",
        "features/{hpt/maxpagesize,smm/tseg,tcg/tb-cache}",
        "features/{hyperv/spinlocks,hyperv/vendor_id,kvm/dirty-ring}/@*",
        "genid",
        "clock/@{adjustment,start,timezone}",
        "clock/timer/@frequency",
        "clock/timer/catchup/@*",
    ),
    # the rest
    *_checked(Kind.ARGUMENT, "commandline/{arg,env}/@value", "override/device/frontend/property/@value"),
    *_harmless("a name of the environment", "commandline/env/@name"),
    *_checked(Kind.SECURITY, "seclabel/@model"),
    *_harmless("of the security driver, which both hosts have", "seclabel/{label,baselabel,imagelabel}"),
    *_harmless("made by libvirt or systemd where it is missing", "resource/partition"),
    *_checked(Kind.DEVICE, "resource/fibrechannel/@appid"),
    *_harmless("for people and programs", "@id", "title", "description", "metadata/*"),
)


def class_of(place: str) -> Rule | None:
    """The rule for a place; None where there is none."""
    return next((rule for rule in RULES if rule.fits(place)), None)
