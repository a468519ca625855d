"""Profiles from the formats of other simulators."""
