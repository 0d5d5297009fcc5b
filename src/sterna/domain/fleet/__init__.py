"""The planner of fleet operations: a snapshot and an operation in, a plan out. No I/O, no clock, no chance."""
