"""What runs on the host that the guest comes to."""
