"""What methods that learn share: frozen features, losses, checkpoint files, official random numbers."""
