sums "make test" make test
