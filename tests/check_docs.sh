# The programs in README.md and in the header block are extracted, compiled, run.
run "programs in README.md and nn.h" $py tests/docs.py $out
