"""Where jobs run: on this machine, on a Ray cluster, or through Slurm.

Every executor is a function from an `Order` to the jobs' endings as they come; the runner stores
them. On whatever machine a job runs, `local` watches over its worker process there.
"""
