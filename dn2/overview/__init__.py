"""What lies in a store, told without changing it."""
