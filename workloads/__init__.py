"""What is asked: requests, completions, SLOs, traces, synthesis, replay, HTTP client."""
