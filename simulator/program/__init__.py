"""The language both interpreters understand, and what of it is refused."""
