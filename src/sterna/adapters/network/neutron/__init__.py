"""The network service of an OpenStack cloud: port bindings (SPEC "Network hand-over")."""
