"""What a controller calls by HTTP at addresses of its settings: webhooks for empty hosts, and notifications."""
