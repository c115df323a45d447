"""Tasks: what is learned. How a batch becomes a loss, which metrics there are, and which one decides."""
