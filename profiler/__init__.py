"""What one server can do: sweeps, step-time fits, `ServerProfile`, capacity."""
