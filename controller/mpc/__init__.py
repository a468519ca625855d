"""The parts of `mpc`: what demand will peak at while a server starts, how much to trust that, and where servers go."""
