"""NIC plugging, one module per plug type."""
