"""Where images come from: every kind of source, each a file of its own."""
