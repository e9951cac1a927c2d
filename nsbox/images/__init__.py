"""Floor 2: the store of root file systems: recipes, builds, entries."""
