"""`sterna support-bundle`: collects versions, settings, logs and state for support, without secrets."""
