"""What happens to gradients: reduction, shards, optimizer steps."""
