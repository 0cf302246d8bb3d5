"""Say what a recipe may hold, read it, and find it."""
