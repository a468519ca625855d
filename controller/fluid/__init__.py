"""A fleet without requests: policies against demand in tokens/s, for studies that take seconds instead of minutes."""
