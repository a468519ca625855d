"""Traces as others write them: one file per format, what they share beside it."""
