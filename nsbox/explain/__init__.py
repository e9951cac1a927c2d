"""Floor 4: what the listener of the system calls hears, as text, as JSON and as a shell script."""
