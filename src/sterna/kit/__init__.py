"""Threads, time limits and commands. Knows nothing of migrations; of Sterna only its errors."""
