"""What this host has, as its kernel shows it."""
