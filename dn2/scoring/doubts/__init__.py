"""What makes dn2 doubt its input: training images, the pictures themselves, and batches that do not fit their bank."""
