"""What one process of a run does."""
