"""Profiles in the formats of other simulators."""
