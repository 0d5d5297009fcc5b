"""HTTP in and out: `/v1` over one controller. Knows no agent, no database, no bus."""
