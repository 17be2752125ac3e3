"""Figures of a timeline, and the reasons why two timelines differ."""
