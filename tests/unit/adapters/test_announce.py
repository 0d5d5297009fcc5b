"""The frame that tells a network where a guest is."""

from sterna.adapters.vif.announce import rarp


def test_a_reverse_arp_request_of_the_guests_own():
    frame = rarp("52:54:00:00:00:aa")
    own = bytes.fromhex("5254000000aa")
    assert len(frame) == 60
    assert frame[:14] == b"\xff" * 6 + own + b"\x80\x35"
    assert frame[14:22] == bytes.fromhex("0001080006040003")
    assert (frame[22:28], frame[32:38]) == (own, own)
    assert frame[42:] == bytes(18)
