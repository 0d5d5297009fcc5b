"""Stand-ins that behave like the real thing, without waiting and with faults on demand."""
