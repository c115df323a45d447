"""The commands of `tombola`, each of which imports what it needs when it runs."""
