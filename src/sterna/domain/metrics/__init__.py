"""What a process measures of itself, for Prometheus: values and rules, without Prometheus's own library."""
