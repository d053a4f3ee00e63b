"""From neighbours to scores: calibration, fit, score."""
