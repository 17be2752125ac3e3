"""Measures what this machine takes for passes and transfers."""
