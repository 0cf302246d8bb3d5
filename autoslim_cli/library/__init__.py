"""What the commands do, as functions on a caller's own network and batches, without a recipe."""
