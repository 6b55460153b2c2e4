"""Real recordings whose answer is roughly known: where estimates should be, and where they are."""
