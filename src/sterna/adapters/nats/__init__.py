"""The bus on NATS: `bus.py` is the port, `connection.py` one connection of it."""
