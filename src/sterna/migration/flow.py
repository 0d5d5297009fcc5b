"""The table of contents. Each step names its SPEC row; each file holds a phase, do and undo side by side.

    source        P1 P2 P3 P12 | M1 M2 . . M4 | pivot | F1 F2 F3 F4 F5 F10 F11
    destination   P4 P5 P6 P7 P8 P9 P10 (P11 is the answer)     F6 F7 F8 F9
    rollback      R0 R1 . . R2 R3 R4 R8 on the source, R3 R5 R6 R7 on the destination

Read `pre.py`, `transfer.py`, `post.py`, `rollback.py` in this order. `agent/source.py` and
`agent/destination.py` give these flows to the saga runner.
"""

from __future__ import annotations

from dataclasses import replace

from sterna.domain.step import Flow
from sterna.migration import media, post, pre, probing, rehearsal, rollback, secrets, steering, transfer
from sterna.migration.context import Context

SOURCE: Flow[Context] = Flow(
    until_pivot=(
        pre.SetPreparing,  # P1
        steering.MeasureLoad,  # what the guest dirties, while the destination is prepared
        pre.SnapshotVolumes,  # P2
        pre.PrepareBindings,  # the network service learns where the ports go
        pre.CallPreLiveMigration,  # P3, P11
        media.SendMedia,  # read-only media that libvirt does not copy
        pre.WaitVifPlugged,  # P12
        probing.ProbeStream,  # nothing is copied through a closed firewall
        pre.DetachDevices,  # virtual functions, which QEMU cannot copy
        transfer.SetMigrating,  # M1
        transfer.FindLocalDisks,  # M2
        transfer.TakeOwnership,  # the epoch, and autostart off
        transfer.Interlock,  # from the hand-over on nobody but Sterna can let it run here
        pre.MakeWay,  # libvirt makes taps of its own for the guest that comes
        transfer.Copy,  # M3, M4, M5, M6: the pivot
    ),
    after_pivot=(
        post.FindVolumes,  # F1
        post.DisconnectVolumes,  # F2
        post.DetachVolumes,  # F3
        post.RemoveVifs,  # F4
        post.CastPostLiveMigration,  # F5
        post.RemoveVm,  # F10
        secrets.RemoveSecretsAtSource,  # F10
        post.ReleaseResources,  # F11
        post.AwaitDestination,  # completed when F9 is reported as well
    ),
    before_undo=(rollback.AskBoth, rollback.SetRollingBack),  # R0, R1
    after_undo=(rollback.ProveSource, rollback.AwaitDestination),  # R8
)

_BEFORE_THE_COPY = SOURCE.until_pivot.index(pre.DetachDevices)
REHEARSAL: Flow[Context] = replace(  # the same; what else can be tried before the copy, which it may not go on to
    SOURCE,
    until_pivot=(
        *SOURCE.until_pivot[:_BEFORE_THE_COPY],
        rehearsal.Rehearse,
        *SOURCE.until_pivot[_BEFORE_THE_COPY:],
    ),
)

DESTINATION: Flow[Context] = Flow(
    until_pivot=(
        pre.AttachVolumes,  # P4
        pre.ReadNetworkInfo,  # P5
        pre.PrepareDriver,  # P6
        pre.ReadImageMetadata,  # P7
        pre.CreateInstanceDirectory,  # P8
        pre.ClaimDevices,  # P8
        secrets.MakeSecrets,  # P9: what they are opened with
        pre.ConnectVolumes,  # P9
        pre.PlugVifs,  # P10
    ),
    before_undo=(rollback.RemoveConfiguration,),  # R5; then R6, R3, R5 and R7: the undo of P10, P9, P8, P5 and P4
)

DESTINATION_POST: Flow[Context] = Flow(
    until_pivot=(),
    after_pivot=(
        post.ReadNetworkInfo,  # F6
        post.ActivateBindings,  # F7
        post.UpdateVm,  # F8
        post.UpdateResources,  # F9
    ),
)

REMOVE_VOLUME_CONNECTION = (rollback.DisconnectVolumes, rollback.TerminateConnections)  # R3
