"""What is asked: the study file, its search space, and the check against the real model and data."""
