"""Models that are trained, described without torch, one file a model family."""
