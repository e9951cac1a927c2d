"""Floor 3: the pod and its life."""
