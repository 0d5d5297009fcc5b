"""The network service of an OpenStack cloud: port bindings (protocol, "The network hand-over")."""
