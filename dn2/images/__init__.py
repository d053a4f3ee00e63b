"""Where images come from: sources, manifests, decoding."""
