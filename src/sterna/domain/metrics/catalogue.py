"""All metrics, by process. docs/reference/metrics.md is made from it, and the alert rules are checked against it.

Labels are bounded: hosts, fixed sets of words, and for copies and operations those that are under way.
"""

from __future__ import annotations

from sterna.domain.metrics.families import Metric, MetricType

_COUNTER, _HISTOGRAM = MetricType.COUNTER, MetricType.HISTOGRAM

# Of every process

BUILD_INFO = Metric(
    name="sterna_build_info", help="Always 1. Version of this process.", labels=("version", "process")
)
BUS_CONNECTED = Metric(
    name="sterna_bus_connected", help="1 while this process is connected to the message bus, else 0."
)
CERTIFICATE_EXPIRY = Metric(
    name="sterna_certificate_expiry_timestamp_seconds",
    help="When this process's own certificate expires, Unix time. Absent if it has none.",
)
WARNING = Metric(
    name="sterna_warning",
    help="1 while this process has a warning, such as a certificate that will expire soon.",
)
DEAD_LETTERS = Metric(
    name="sterna_dead_letters",
    help="Messages that cannot be handled; `sterna audit` lists them and `--repair` discards them.",
)
COMMON = (BUILD_INFO, BUS_CONNECTED, CERTIFICATE_EXPIRY, WARNING, DEAD_LETTERS)

# Of a controller: hosts

DATABASE_UP = Metric(
    name="sterna_database_up",
    help="1 if this controller's database answered during this scrape. At 0, metrics read from it are absent.",
)
HOST_STATE = Metric(
    name="sterna_host_state",
    help="1 for the host's current state, 0 for the others. Hosts that were removed are not included.",
    labels=("host", "state"),
)
HOST_INFO = Metric(
    name="sterna_host_info",
    help="Always 1. Versions that the host's agent reports.",
    labels=("host", "libvirt_version", "qemu_version"),
)
HOST_MAINTENANCE = Metric(
    name="sterna_host_maintenance",
    help="1 while the host accepts no VMs because of an operator or an operation.",
    labels=("host",),
)
HOST_WARNING = Metric(name="sterna_host_warning", help="1 while the host's agent has a warning.", labels=("host",))
HOST_LAST_SEEN = Metric(
    name="sterna_host_last_seen_timestamp_seconds",
    help="When the last heartbeat of the host's agent arrived, Unix time by this controller's clock.",
    labels=("host",),
)
HOST_MEMORY = Metric(name="sterna_host_memory_bytes", help="Memory of the host.", labels=("host",))
HOST_MEMORY_FREE = Metric(name="sterna_host_memory_free_bytes", help="Free memory of the host.", labels=("host",))
HOST_DISK_FREE = Metric(
    name="sterna_host_disk_free_bytes",
    help="Free space for local disks of the host. Absent if unknown.",
    labels=("host",),
)
HOST_VMS = Metric(name="sterna_host_vms", help="VMs of the host, as last seen.", labels=("host",))
VMS = Metric(name="sterna_vms", help="VMs of the fleet by state, as last seen.", labels=("state",))
HEARTBEATS_REFUSED = Metric(
    name="sterna_heartbeats_refused_total",
    help="Refused heartbeats: from unknown senders, or under another host's name.",
    type=_COUNTER,
)

# Of a controller: migrations

MIGRATIONS = Metric(name="sterna_migrations", help="Migrations that hold their VM, by status.", labels=("status",))
HOST_MIGRATIONS = Metric(
    name="sterna_host_migrations",
    help="Migrations that hold their VM, out of and into each known host. Hosts without any are absent.",
    labels=("host", "direction"),
)
FINISHED = Metric(
    name="sterna_migrations_finished_total",
    help="Migrations that have ended, without rehearsals. Each is counted by one controller of the database: use "
    "the sum.",
    type=_COUNTER,
    labels=("outcome", "mode"),
)
DURATION = Metric(
    name="sterna_migration_duration_seconds",
    help="From the acceptance of a migration to its end.",
    type=_HISTOGRAM,
    labels=("outcome",),
    buckets=(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10800),
)
PHASE = Metric(
    name="sterna_migration_phase_seconds",
    help="How long migrations stayed in each status before they ended.",
    type=_HISTOGRAM,
    labels=("status",),
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
DOWNTIME = Metric(
    name="sterna_migration_downtime_seconds",
    help="How long the guest was paused for the switch-over, as the destination's libvirt reports it.",
    type=_HISTOGRAM,
    labels=("mode",),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 30),
)
MOVED_BYTES = Metric(
    name="sterna_migration_moved_bytes_total",
    help="Bytes sent by migrations that have ended.",
    type=_COUNTER,
    labels=("kind",),
)

# Of a controller: copies that are running. The labels join with those of libvirt's exporters.

COPY_LABELS = ("uuid", "domain", "source", "destination")
COPY_TOTAL = Metric(
    name="sterna_migration_data_total_bytes",
    help="Memory and copied disks of a running copy.",
    labels=COPY_LABELS,
)
COPY_PROCESSED = Metric(
    name="sterna_migration_processed_bytes", help="Bytes that a running copy has sent so far.", labels=COPY_LABELS
)
COPY_REMAINING = Metric(
    name="sterna_migration_remaining_bytes", help="Bytes that a running copy has still to send.", labels=COPY_LABELS
)
COPY_RATE = Metric(
    name="sterna_migration_transfer_rate_bytes_per_second",
    help="Transfer rate of a running copy, smoothed.",
    labels=COPY_LABELS,
)
COPY_DIRTY_RATE = Metric(
    name="sterna_migration_dirty_rate_bytes_per_second",
    help="Rate at which the guest of a running copy writes memory.",
    labels=COPY_LABELS,
)
COPY_PROGRESS = Metric(
    name="sterna_migration_progress_ratio",
    help="Completed share of the estimated work. Never decreases.",
    labels=COPY_LABELS,
)
COPY_ETA = Metric(
    name="sterna_migration_eta_seconds",
    help="Seconds until the guest runs on its destination. Absent if unknown.",
    labels=COPY_LABELS,
)
COPIES = (
    COPY_TOTAL,
    COPY_PROCESSED,
    COPY_REMAINING,
    COPY_RATE,
    COPY_DIRTY_RATE,
    COPY_PROGRESS,
    COPY_ETA,
)

# Of a controller: operations

OPERATIONS = Metric(name="sterna_operations", help="Operations that have not ended, by status.", labels=("status",))
OPERATION_STARTED = Metric(
    name="sterna_operation_started_timestamp_seconds",
    help="When an operation that has not ended was started, Unix time.",
    labels=("operation",),
)
OPERATION_PROMISED_END = Metric(
    name="sterna_operation_promised_end_timestamp_seconds",
    help="The promised end of an operation that has not ended, Unix time. Absent if there is none.",
    labels=("operation",),
)
OPERATION_LATE = Metric(
    name="sterna_operation_late_seconds",
    help="How far the promised end is after the operation's deadline. Absent if it is not, or without a deadline.",
    labels=("operation",),
)
OPERATION_VMS = Metric(
    name="sterna_operation_vms",
    help="VMs of an operation that has not ended: being migrated, waiting, and left where they are.",
    labels=("operation", "state"),
)
OF_OPERATIONS = (
    OPERATIONS,
    OPERATION_STARTED,
    OPERATION_PROMISED_END,
    OPERATION_LATE,
    OPERATION_VMS,
)

# Of a controller: notifications

NOTIFICATIONS = Metric(
    name="sterna_notifications_total",
    help="Tries to deliver notifications to an endpoint, by result, and notifications that were given up. Each is "
    "counted by the controller that made it: use the sum.",
    type=_COUNTER,
    labels=("endpoint", "result"),
)
NOTIFICATIONS_PENDING = Metric(
    name="sterna_notifications_pending",
    help="Notifications that wait for an endpoint of this controller's settings.",
    labels=("endpoint",),
)

CONTROLLER = (
    *COMMON,
    DATABASE_UP,
    HOST_STATE,
    HOST_INFO,
    HOST_MAINTENANCE,
    HOST_WARNING,
    HOST_LAST_SEEN,
    HOST_MEMORY,
    HOST_MEMORY_FREE,
    HOST_DISK_FREE,
    HOST_VMS,
    VMS,
    HEARTBEATS_REFUSED,
    MIGRATIONS,
    HOST_MIGRATIONS,
    FINISHED,
    DURATION,
    PHASE,
    DOWNTIME,
    MOVED_BYTES,
    *COPIES,
    *OF_OPERATIONS,
    NOTIFICATIONS,
    NOTIFICATIONS_PENDING,
)

# Of an agent

AGENT_USABLE = Metric(
    name="sterna_agent_usable",
    help="1 while this host can take part in migrations: libvirtd answers, and the journal can be written.",
)
LIBVIRT_RESPONSE = Metric(
    name="sterna_agent_libvirt_response_seconds",
    help="How long libvirtd took to describe the host for the last heartbeat. Absent if it did not respond.",
)
AGENT_MIGRATIONS = Metric(
    name="sterna_agent_migrations",
    help="Migrations in this host's journal that are not closed, by the host's role in them.",
    labels=("role",),
)
AGENT_FINISHED = Metric(
    name="sterna_agent_migrations_finished_total",
    help="Migrations out of this host that have ended since its agent started, rehearsals included.",
    type=_COUNTER,
    labels=("outcome",),
)
STEP_FAILURES = Metric(
    name="sterna_agent_step_failures_total",
    help="Failed attempts of a step since the agent started, by row of the protocol.",
    type=_COUNTER,
    labels=("row",),
)
OUTBOX_PENDING = Metric(
    name="sterna_agent_outbox_pending",
    help="Messages to other processes that have not been acknowledged yet. They are sent again until they are.",
)
OUTBOX_REFUSED = Metric(
    name="sterna_agent_outbox_refused",
    help="Of these, messages that their receiver refuses.",
)
AGENT = (
    *COMMON,
    AGENT_USABLE,
    LIBVIRT_RESPONSE,
    AGENT_MIGRATIONS,
    AGENT_FINISHED,
    STEP_FAILURES,
    OUTBOX_PENDING,
    OUTBOX_REFUSED,
)

PROCESS = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)
"""Prometheus's usual ones of any process, made by its library."""
