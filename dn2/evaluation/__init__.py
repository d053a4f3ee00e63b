"""Where the truth is known: metrics and the demo."""
