"""The frame that tells a network where a guest is."""

import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sterna.adapters.vif import announce, bridge
from sterna.adapters.vif.announce import send_as
from sterna.adapters.vif.frames import announcements, rarp
from sterna.domain.errors import Permanent, Temporary
from sterna.domain.model import Nic
from sterna.domain.plugs import OVS

OWN = bytes.fromhex("5254000000aa")


def test_a_reverse_arp_request_of_the_guests_own() -> None:
    frame = rarp("52:54:00:00:00:aa")
    own = bytes.fromhex("5254000000aa")
    assert len(frame) == 60
    assert frame[:14] == b"\xff" * 6 + own + b"\x80\x35"
    assert frame[14:22] == bytes.fromhex("0001080006040003")
    assert (frame[22:28], frame[32:38]) == (own, own)
    assert frame[42:] == bytes(18)


def told_of(*addresses: str) -> list[bytes]:
    return announcements(Nic(mac="52:54:00:00:00:aa", plug=OVS, addresses=addresses))


def test_without_known_addresses_the_mac_is_told() -> None:
    assert told_of() == [rarp("52:54:00:00:00:aa")]


def test_a_gratuitous_arp_for_a_known_ipv4_address() -> None:
    _, frame = told_of("192.0.2.7")
    assert len(frame) == 60
    assert frame[:14] == b"\xff" * 6 + OWN + b"\x08\x06"
    assert frame[14:22] == bytes.fromhex("0001080006040001")  # a request: nobody's cache refuses it
    assert (frame[22:28], frame[28:32], frame[38:42]) == (OWN, bytes([192, 0, 2, 7]), bytes([192, 0, 2, 7]))


def test_an_unsolicited_advertisement_for_a_known_ipv6_address() -> None:
    address = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    all_nodes = socket.inet_pton(socket.AF_INET6, "ff02::1")
    _, frame = told_of("2001:db8::7")
    assert frame[:14] == bytes.fromhex("333300000001") + OWN + b"\x86\xdd"
    version, length, following, hops = struct.unpack("!IHBB", frame[14:22])
    assert (version >> 28, length, following, hops) == (6, 32, 58, 255)
    assert (frame[22:38], frame[38:54]) == (address, all_nodes)
    icmp = frame[54:]
    assert len(icmp) == length
    assert icmp[:2] == bytes([136, 0]) and icmp[4:8] == bytes.fromhex("20000000")
    assert (icmp[8:24], icmp[24:]) == (address, b"\x02\x01" + OWN)
    words = struct.unpack("!36H", address + all_nodes + struct.pack("!II", length, 58) + icmp)
    assert sum(words) % 0xFFFF == 0  # as a receiver checks it


def test_of_several_addresses_each_is_told() -> None:
    assert [frame[12:14].hex() for frame in told_of("192.0.2.7", "2001:db8::7", "192.0.2.8")] == [
        "8035",
        "0806",
        "86dd",
        "0806",
    ]


HELLO, ERROR, PACKET_OUT, BARRIER, BARRIER_REPLY = 0, 1, 13, 20, 21


def switch(folder: Path, answer: int | None) -> Callable[[], bytes]:
    """Listens as the bridge's OpenFlow port, answers once (None: hangs up); what it was sent, once over."""
    listening = socket.create_server(str(folder / "br-int.mgmt"), family=socket.AF_UNIX)
    heard = []

    def serve() -> None:
        with listening, listening.accept()[0] as client:
            heard.append(client.recv(4096))
            if answer is not None:
                hello = struct.pack("!BBHI", 4, HELLO, 8, 0)
                client.sendall(hello + struct.pack("!BBHI4s", 4, answer, 12, 0, b"abcd"))

    serving = threading.Thread(target=serve)
    serving.start()

    def over() -> bytes:
        serving.join(5)
        return heard[0]

    return over


def test_frames_go_to_the_switch_as_if_they_had_come_in_through_the_port(tmp_path: Path) -> None:
    over = switch(tmp_path, BARRIER_REPLY)
    send_as(f"unix:{tmp_path}/db.sock", "br-int", 7, told_of("192.0.2.7"))
    sent = over()
    assert sent[:2] == bytes([4, HELLO]) and sent[9] == PACKET_OUT and sent[-7] == BARRIER
    assert struct.unpack("!II", sent[16:24]) == (0xFFFFFFFF, 7)
    assert all(frame in sent for frame in told_of("192.0.2.7"))


@pytest.mark.parametrize(("answer", "error"), [(ERROR, Permanent), (None, Temporary)])
def test_a_switch_that_refuses_or_hangs_up(tmp_path: Path, answer: int | None, error: type[Exception]) -> None:
    over = switch(tmp_path, answer)
    with pytest.raises(error, match="port 7 of br-int"):
        send_as(f"unix:{tmp_path}/db.sock", "br-int", 7, [b""])
    over()


def test_a_switch_that_takes_everything_and_answers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "_LIMIT_S", 0.1)
    refused = pytest.raises(Temporary, match="port 7 of br-int")
    with socket.create_server(str(tmp_path / "br-int.mgmt"), family=socket.AF_UNIX), in_time(), refused:
        send_as(f"unix:{tmp_path}/db.sock", "br-int", 7, [b""])


def test_nor_one_that_says_hello_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "_LIMIT_S", 0.1)
    with socket.create_server(str(tmp_path / "br-int.mgmt"), family=socket.AF_UNIX) as listening, in_time():
        clients = []

        def greet() -> None:
            clients.append(listening.accept()[0])
            clients[0].sendall(struct.pack("!BBHI", 4, HELLO, 8, 0))

        greeting = threading.Thread(target=greet)
        greeting.start()
        with pytest.raises(Temporary, match="port 7 of br-int"):
            send_as(f"unix:{tmp_path}/db.sock", "br-int", 7, [b""])
        greeting.join(5)
        clients[0].close()


def test_a_device_that_takes_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is full."""
    near, far = socket.socketpair()

    class Raw(socket.socket):
        def __init__(self, *_: object) -> None:
            super().__init__(fileno=near.detach())
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

        def bind(self, _address: object) -> None:
            pass

    monkeypatch.setattr(bridge, "_LIMIT_S", 0.1)
    monkeypatch.setattr(socket, "socket", Raw)
    with far, in_time(), pytest.raises(Permanent, match="through br-lan"):
        bridge.send("br-lan", [bytes(1500)] * 1000)


@contextmanager
def in_time() -> Iterator[None]:
    """Fails, instead of waiting, where the limit is not kept."""

    def late(*_: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(4)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_no_switch(tmp_path: Path) -> None:
    with pytest.raises(Temporary):
        send_as(f"unix:{tmp_path}/db.sock", "br-int", 7, [b""])
