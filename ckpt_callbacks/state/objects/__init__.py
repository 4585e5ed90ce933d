"""Live objects: what in them is state, and what the user's own code may do to it."""
