"""What people look at: pages, pictures, summaries, export."""
