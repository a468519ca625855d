"""The live dashboard: a page and /metrics of a run under way, served by a thread of their own."""
