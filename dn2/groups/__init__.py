"""Sets of images that are scored as one: how they are pooled, what is normal for their size, and which are odd."""
