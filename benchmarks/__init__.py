"""The benchmark suite: cfnshm beside its peers, in one run. `make bench`, `cfnshm bench`."""
