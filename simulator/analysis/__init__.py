"""What a timeline says, and why two of them differ."""
