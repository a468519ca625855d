"""What to do: forecasts, ILP, policies, NIW queue rules, routing rules. No server, no socket, no clock."""
