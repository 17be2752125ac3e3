"""From a plan to a program: small transforms that write instructions."""
