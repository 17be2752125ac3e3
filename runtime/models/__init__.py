"""Torch modules, one file a model family, and their autograd helpers."""
