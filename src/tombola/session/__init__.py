"""What a person calls from Python to run something: a study, or a loop of their own; then tables and figures."""
