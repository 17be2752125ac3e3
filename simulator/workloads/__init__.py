"""What is trained: torch-free descriptions, one file a model family."""
