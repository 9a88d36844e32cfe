"""Reading many items at once, in processes."""
