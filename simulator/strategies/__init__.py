"""A plan becomes a program here: small transforms that write instructions."""
