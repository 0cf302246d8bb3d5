"""Run the stages of a recipe: each reads files, does one visible loop, and writes files."""
