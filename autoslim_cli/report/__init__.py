"""Show people what was found: figures and tables."""
