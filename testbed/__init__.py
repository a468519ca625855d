"""Servers, GPUs, regions, fleet, router, clock, scenarios, the run itself and the CLI: the composition root."""
