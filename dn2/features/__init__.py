"""From pixels to embeddings: backbones, engines, shards."""
