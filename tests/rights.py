"""What each may do on the bus, case by case: for our own rules and for a real nats-server."""

from __future__ import annotations

from sterna.domain.trust.identities import Identity, Kind

HOST1, HOST2 = (Identity(kind=Kind.AGENT, name=n) for n in ("host1", "host2"))
CONTROLLER = Identity(kind=Kind.CONTROLLER, name="c1")

PUBLISHES = [
    (HOST1, "sterna.agent.host2.call.host1", True),
    (HOST1, "sterna.agent.host2.cast.host1", True),
    (HOST1, "sterna.event.host.host1", True),
    (HOST1, "sterna.event.journal.host1", True),
    (HOST1, "sterna.event.progress.host1.m1", True),
    (HOST1, "sterna.event.leaving.host1.m1", True),
    (HOST1, "sterna.event.vms.host1", True),
    (HOST1, "sterna.event.vms.host2", False),
    (HOST1, "sterna.agent.host2.call.host2", False),
    (HOST1, "sterna.agent.host2.call.@controller", False),
    (HOST1, "sterna.agent.host2.cast.@controller", False),
    (HOST1, "sterna.event.host.host2", False),
    (HOST1, "sterna.event.journal.host2", False),
    (HOST1, "sterna.event.progress.host2.m1", False),
    (HOST1, "sterna.event.leaving.host2.m1", False),
    (HOST1, "sterna.event.external.vm1", False),
    (HOST1, "_INBOX.host2.1", False),
    (HOST1, "_INBOX.host1.1", False),
    (HOST1, "_INBOX.host2.process.request.host1", True),
    (HOST1, "_INBOX.@controller.process.request.host1", True),
    (HOST1, "_INBOX.host2.process.request.host2", False),
    (HOST1, "_INBOX.@controller.process.request.host2", False),
    (HOST1, "_INBOX.host1.process.request.@controller", False),
    (HOST1, "_INBOX.host2.process.request.more.host1", False),
    (HOST1, "_INBOX.host2.process.1", False),
    (HOST1, "_INBOX.host2.process.host1", False),
    (HOST1, "$SYS.REQ.SERVER.PING", False),
    (HOST1, "$SYS.REQ.USER.INFO", False),
    (HOST1, "$JS.API.INFO", False),
    (HOST1, "anything", False),
    (CONTROLLER, "sterna.agent.host1.call.@controller", True),
    (CONTROLLER, "sterna.event.external.vm1", True),
    (CONTROLLER, "sterna.agent.host1.call.host2", False),
    (CONTROLLER, "sterna.agent.host1.cast.@controller", False),
    (CONTROLLER, "sterna.event.host.host1", False),
    (CONTROLLER, "_INBOX.host1.process.request.@controller", False),
    (CONTROLLER, "_INBOX.host1.process.request.host2", False),
    (CONTROLLER, "_INBOX.host1.process.1", False),
    (CONTROLLER, "$SYS.REQ.SERVER.PING", False),
]
SUBSCRIBES = [
    (HOST1, "sterna.agent.host1.call.*", True),
    (HOST1, "sterna.agent.host1.cast.*", True),
    (HOST1, "sterna.event.host.*", True),
    (HOST1, "sterna.event.external.*", True),
    (HOST1, "sterna.event.leaving.*.*", True),
    (HOST1, "_INBOX.host1.process.*.*", True),
    (HOST1, "_INBOX.host1.>", True),
    (HOST1, "sterna.agent.host2.call.*", False),
    (HOST1, "sterna.agent.*.call.*", False),
    (HOST1, "sterna.agent.host1.>", False),
    (HOST1, "sterna.event.>", False),
    (HOST1, "sterna.event.journal.*", False),
    (HOST1, "sterna.event.vms.*", False),
    (HOST1, "_INBOX.>", False),
    (HOST1, "_INBOX.*.>", False),
    (HOST1, "_INBOX.host2.>", False),
    (HOST1, "_INBOX.*.*.*.host1", False),
    (HOST1, "$SYS.>", False),
    (HOST1, "_R_.>", False),
    (HOST1, ">", False),
    (HOST1, "*", False),
    (CONTROLLER, "sterna.event.journal.*", True),
    (CONTROLLER, "sterna.event.progress.*.*", True),
    (CONTROLLER, "sterna.event.vms.*", True),
    (CONTROLLER, "_INBOX.@controller.>", True),
    (CONTROLLER, "sterna.agent.host1.call.*", False),
    (CONTROLLER, "_INBOX.>", False),
    (CONTROLLER, "$SYS.>", False),
]

OWN_LOOPS = ("sterna.agent.host2.call.host2", "sterna.agent.host2.cast.host2", "sterna.event.host.host2")
"""Where host2 may send and may listen too: so it receives messages with a reply subject of its own choice."""
NAMED_AS_REPLY = (
    "sterna.agent.host1.call.@controller",
    "sterna.agent.host1.cast.@controller",
    "sterna.agent.host1.call.host1",
    "sterna.agent.host2.call.@controller",
    "sterna.event.host.host1",
    "sterna.event.journal.host1",
    "sterna.event.progress.host1.m1",
    "sterna.event.external.vm1",
    "_INBOX.@controller.process.request.host1",
    "_INBOX.host1.process.request.host1",
    "_INBOX.host1.process.request.@controller",
    "$SYS.REQ.USER.INFO",
)
"""What host2 may not say, by whatever reply subject."""
