"""Floor 2: the network of a pod."""
