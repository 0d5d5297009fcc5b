"""Network services: none (`native.py`), or OpenStack's (`neutron/`)."""
