"""The web UI: pages that the controller makes. They read what `/v1` reads, and ask for what `/v1` asks for."""
