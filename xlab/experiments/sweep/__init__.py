"""A matrix of parameters, a comparison at each of its points.

spec.py     sweep.yaml ──> points, every one of them sensible, or refused with the place
task.py     one point: all its methods and the baseline, compared on one machine, in a process of
            its own; what comes back is data
engine.py   dask.distributed hands points to workers: one inside this process, or a cluster's
outcome.py  points/SLUG/compare.json as each arrives; sweep.json of them all
"""
