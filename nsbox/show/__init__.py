"""Floor 4: pods as tables and text for a person."""
