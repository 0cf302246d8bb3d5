"""Build the networks that recipes name."""
