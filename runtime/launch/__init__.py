"""Starts ranks and watches over them; imports no torch."""
