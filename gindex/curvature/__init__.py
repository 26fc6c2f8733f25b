"""Curvature of a model: covariances, eigenbases, corrected eigenvalues, damping, and the fit."""
