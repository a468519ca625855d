"""What is recorded, computed, drawn and compared."""
