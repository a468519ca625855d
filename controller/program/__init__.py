"""The integer program of SageServe: how many servers of which model, where, on which GPU type."""
