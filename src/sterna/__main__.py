"""`python -m sterna` and the `sterna` command: the CLI, the lab, and the processes."""
