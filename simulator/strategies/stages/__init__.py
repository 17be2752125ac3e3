"""Stages of the pipeline are cut into segments here, and send each other messages."""
