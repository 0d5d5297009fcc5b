"""The table of contents: every step in order, with the row it belongs to. The folder of a step is who runs it.

    source        P1 P2 P3 P12 | M1 M2 . . M4 | pivot | F1 F2 F3 F4 F5 . F10 F11
    destination   P4 P5 P6 P7 P8 P9 P10 (P11 is the answer)     F6 F7 F8 F9
    rollback      R0 R1 . . R2 R3 R4 R8 on the source, R3 R5 R6 R7 on the destination

Read `prepare.py`, `copy.py`, `release.py` and `rollback.py` of `source/` in this order, and beside them those of
`destination/`: `prepare.py`, `arrive.py` and `rollback.py`. `agent/source.py` and `agent/destination.py` give these
flows to the saga runner.
"""

from __future__ import annotations

from dataclasses import replace

from sterna.domain.step import Flow
from sterna.migration.context import Context
from sterna.migration.destination.arrive import ActivateBindings, ReadNetworkInfoAfter, UpdateResources, UpdateVm
from sterna.migration.destination.prepare import (
    AttachVolumes,
    ClaimDevices,
    ConnectVolumes,
    CreateInstanceDirectory,
    PlugVifs,
    PrepareDriver,
    ReadImageMetadata,
    ReadNetworkInfo,
)
from sterna.migration.destination.rollback import DisconnectVolumesHere, RemoveConfiguration, TerminateConnections
from sterna.migration.destination.secrets import MakeSecrets
from sterna.migration.source.copy import Copy, FindLocalDisks, Interlock, MakeWay, SetMigrating, TakeOwnership
from sterna.migration.source.media import SendMedia
from sterna.migration.source.prepare import (
    CallPreLiveMigration,
    DetachDevices,
    PrepareBindings,
    SetPreparing,
    SnapshotVolumes,
    WaitVifPlugged,
)
from sterna.migration.source.probe_stream import ProbeStream
from sterna.migration.source.rehearsal import Rehearse
from sterna.migration.source.release import (
    AwaitDestination,
    CastPostLiveMigration,
    DetachRemainingVolumes,
    DetachVolumes,
    DisconnectVolumes,
    FindVolumes,
    ReleaseResources,
    RemoveVifsAtSource,
    RemoveVm,
)
from sterna.migration.source.rollback import AskBoth, AwaitRollbackAtDestination, ProveSource, SetRollingBack
from sterna.migration.source.secrets import RemoveSecretsAtSource
from sterna.migration.source.steering import MeasureLoad

SOURCE: Flow[Context] = Flow(
    until_pivot=(
        SetPreparing,  # P1
        MeasureLoad,  # what the guest dirties, while the destination is prepared
        SnapshotVolumes,  # P2
        PrepareBindings,  # the network service learns where the ports go
        CallPreLiveMigration,  # P3, P11
        SendMedia,  # read-only media that libvirt does not copy
        WaitVifPlugged,  # P12
        ProbeStream,  # nothing is copied through a closed firewall
        DetachDevices,  # virtual functions, which QEMU cannot copy
        SetMigrating,  # M1
        FindLocalDisks,  # M2
        TakeOwnership,  # the epoch, and autostart off
        Interlock,  # from the hand-over on only Sterna can let it run here
        MakeWay,  # libvirt makes taps of its own for the guest that comes
        Copy,  # M3, M4, M5, M6: the pivot
    ),
    after_pivot=(
        FindVolumes,  # F1
        DisconnectVolumes,  # F2
        DetachVolumes,  # F3
        RemoveVifsAtSource,  # F4
        CastPostLiveMigration,  # F5
        DetachRemainingVolumes,  # what F3 left, where libvirt did not answer
        RemoveVm,  # F10
        RemoveSecretsAtSource,  # F10
        ReleaseResources,  # F11
        AwaitDestination,  # completed when F9 is reported as well
    ),
    before_undo=(AskBoth, SetRollingBack),  # R0, R1
    after_undo=(ProveSource, AwaitRollbackAtDestination),  # R8
)

_BEFORE_THE_COPY = SOURCE.until_pivot.index(DetachDevices)
REHEARSAL: Flow[Context] = replace(  # the same; what else can be tried before the copy, which it may not go on to
    SOURCE,
    until_pivot=(
        *SOURCE.until_pivot[:_BEFORE_THE_COPY],
        Rehearse,
        *SOURCE.until_pivot[_BEFORE_THE_COPY:],
    ),
)

DESTINATION: Flow[Context] = Flow(
    until_pivot=(
        AttachVolumes,  # P4
        ReadNetworkInfo,  # P5
        PrepareDriver,  # P6
        ReadImageMetadata,  # P7
        CreateInstanceDirectory,  # P8
        ClaimDevices,  # P8
        MakeSecrets,  # P9: what they are opened with
        ConnectVolumes,  # P9
        PlugVifs,  # P10
    ),
    before_undo=(RemoveConfiguration,),  # R5; then R6, R3, R5 and R7: the undo of P10, P9, P8, P5 and P4
)

DESTINATION_POST: Flow[Context] = Flow(
    until_pivot=(),
    after_pivot=(
        ReadNetworkInfoAfter,  # F6
        ActivateBindings,  # F7
        UpdateVm,  # F8
        UpdateResources,  # F9
    ),
)

REMOVE_VOLUME_CONNECTION = (DisconnectVolumesHere, TerminateConnections)  # R3
