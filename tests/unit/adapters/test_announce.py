"""The frame that tells a network where a guest is."""

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.adapters.vif.announce import rarp, send_as
from sterna.domain.errors import Permanent, Temporary


def test_a_reverse_arp_request_of_the_guests_own():
    frame = rarp("52:54:00:00:00:aa")
    own = bytes.fromhex("5254000000aa")
    assert len(frame) == 60
    assert frame[:14] == b"\xff" * 6 + own + b"\x80\x35"
    assert frame[14:22] == bytes.fromhex("0001080006040003")
    assert (frame[22:28], frame[32:38]) == (own, own)
    assert frame[42:] == bytes(18)


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


def test_a_frame_goes_to_the_switch_as_if_it_had_come_in_through_the_port(tmp_path: Path):
    over = switch(tmp_path, BARRIER_REPLY)
    send_as(f"unix:{tmp_path}/db.sock", "br-int", 7, rarp("52:54:00:00:00:aa"))
    told = over()
    assert told[:2] == bytes([4, HELLO]) and told[9] == PACKET_OUT and told[-7] == BARRIER
    assert struct.unpack("!II", told[16:24]) == (0xFFFFFFFF, 7)
    assert rarp("52:54:00:00:00:aa") in told


@pytest.mark.parametrize(("answer", "error"), [(ERROR, Permanent), (None, Temporary)])
def test_a_switch_that_refuses_or_hangs_up(tmp_path: Path, answer: int | None, error: type[Exception]):
    over = switch(tmp_path, answer)
    with pytest.raises(error, match="port 7 of br-int"):
        send_as(f"unix:{tmp_path}/db.sock", "br-int", 7, b"")
    over()


def test_no_switch(tmp_path: Path):
    with pytest.raises(Temporary):
        send_as(f"unix:{tmp_path}/db.sock", "br-int", 7, b"")
