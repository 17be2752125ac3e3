"""Codecs: encoded forms of gradients, as far as time, memory and bytes on the wire go."""
