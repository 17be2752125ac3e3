"""Machines: devices, links, collectives, presets and measured profiles."""
