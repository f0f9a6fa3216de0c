"""What is taken out of rows, and why."""
