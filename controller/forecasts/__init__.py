"""What demand will be: forecasters, their calibrated quantiles, and how good they are."""
