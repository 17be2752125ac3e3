"""Codecs on real tensors: one file for each of `simulator/program/codecs`, of the same name."""
