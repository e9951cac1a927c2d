"""Floor 2: process attributes and identities. The only room that uses python-prctl."""
