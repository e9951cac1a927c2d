"""Floor 1: what the kernel offers, one function per call."""
