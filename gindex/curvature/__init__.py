"""Curvature: covariances, eigenbases, corrected eigenvalues, damping, and the driver that fits them."""
