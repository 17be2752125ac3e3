"""Timelines, memory and profiles as matplotlib figures."""
