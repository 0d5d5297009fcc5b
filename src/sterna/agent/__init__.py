"""The host daemon: which RPC methods exist, and which flow each one starts."""
