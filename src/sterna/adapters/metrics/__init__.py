"""Metrics in Prometheus's text format, and a listener that serves them."""
