"""Many predictions side by side."""
