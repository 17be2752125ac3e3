"""The suite of cases that predictions are validated with; imports no torch."""
