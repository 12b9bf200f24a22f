"""A long task becomes a folder that any process can start, watch and stop."""

from napari_hyperst.jobs.job import Job, jobs_folder

__all__ = ["Job", "jobs_folder"]
