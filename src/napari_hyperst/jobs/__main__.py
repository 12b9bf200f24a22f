"""``python -m napari_hyperst.jobs``: the process of a job."""

import sys

from napari_hyperst.jobs.worker import main

sys.exit(main(sys.argv[1:]))
