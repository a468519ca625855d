"""The load generator against a server whose every token time is known."""
