"""A process looks at its own certificate before it starts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import structlog

from sterna.adapters.identity.look import faults_of
from sterna.adapters.identity.own import OwnFiles
from sterna.bootstrap.process import DISK_FIX, warn_when_slow
from sterna.config.bus import BusTls, IdentitySettings
from sterna.domain.errors import BadRequest
from sterna.domain.trust.identities import Identity, Kind

log = structlog.get_logger(__name__)

_FIX = {
    Kind.AGENT: "let it join again: `sterna host add {}`, then `sterna agent join -` here",
    Kind.CONTROLLER: "issue another one: `sterna ca issue controller NAME --folder FOLDER`",
}


def check_own(identity: IdentitySettings, kind: Kind, name: str = "", addresses: Iterable[str] = ()) -> None:
    """Raises BadRequest where the settings name a certificate that others would refuse. `name`: '' for whatever
    name the certificate has. `addresses`: a certificate of another CA must be made out to them."""
    files = identity.bus_tls(BusTls())
    if not identity.enrol:
        fix = "enrol hosts and controllers, and set `enrol` in [identity]"
        log.warning("INSECURE: the bus does not authenticate senders", fix=fix)
    if not identity.enrol or files.ca_file is None or files.cert_file is None or files.key_file is None:
        return
    ours = identity.enrol == "sterna"
    places = () if ours else tuple(addresses)
    with warn_when_slow(f"the disk of {files.cert_file}", DISK_FIX):
        if ours and not name:
            name = OwnFiles(identity.folder, kind).name()
        who = Identity(kind=kind, name=name) if ours else None
        found = faults_of(files.ca_file, files.cert_file, files.key_file, who, places, datetime.now(UTC))
    if found:
        fix = _FIX[kind].format(name) if ours else "replace it, and name the files in [identity]"
        raise BadRequest(f"the certificate {files.cert_file} cannot be used: {'; '.join(found)}", fix=fix)
