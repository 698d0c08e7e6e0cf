"""A model behind HTTP: dialogues in, spoken replies out, and a border that trusts nothing of what comes in."""
