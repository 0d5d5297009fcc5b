"""How long nobody reaches a guest with a Neutron port while it moves, with real Open vSwitch agents."""
