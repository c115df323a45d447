"""tombola finds winning lottery tickets."""
