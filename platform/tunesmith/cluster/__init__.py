"""Where the work runs: a Ray on this machine, a cluster that is joined, or one that a job is submitted to."""
