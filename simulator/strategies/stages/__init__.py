"""What a pipeline rank owns, cut into segments, and the messages between stages."""
