"""Learning the numbers of a synthetic workload from a trace."""
