"""Read and write every file: recipes, channel configs, checkpoints. Recipes and configs need no torch."""
