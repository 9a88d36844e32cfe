"""Every HTML page and picture that the program makes."""
