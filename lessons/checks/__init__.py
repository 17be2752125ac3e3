"""The checks of exercises, one file a lesson."""
