"""The scaling policies; each is pure, with parameters from `controller.parameters`."""
