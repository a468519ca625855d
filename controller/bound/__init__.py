"""The least GPU-hours that any controller needs, with perfect foresight."""
