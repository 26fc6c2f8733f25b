"""Evaluations: scores of methods against retraining, and against what is known of the documents."""
