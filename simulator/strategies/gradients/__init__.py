"""Gradients are reduced, sharded, clipped and applied by the transforms of this folder."""
