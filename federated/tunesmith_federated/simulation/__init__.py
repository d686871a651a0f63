"""Sites of one machine, or one Ray cluster: the same apps as of real ones, over a data set that is dealt out."""
