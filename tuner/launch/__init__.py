"""Where workers run: SLURM, Kubernetes, Ray.

A launcher only starts ``tuner worker start`` somewhere and sees to it that it ends when its time is over. It owns no trial and
knows none: the database alone says who runs what, so workers of all launchers and of none may serve the same study.
"""
