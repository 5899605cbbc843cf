# make digits   trains on real handwritten digits        make test    the fast tests        make check   everything that CI runs
# make bench    how fast it is here, 2 minutes          make bench-peers   beside PyTorch and others: installs them, half an hour
CC      ?= cc
CXX     ?= c++
CFLAGS  ?= -O2
LIBS     = -lm -lpthread
PREFIX  ?= /usr/local
JOBS    ?= $(shell nproc 2>/dev/null || echo 1)
STB      = $(wildcard /usr/include/stb)
TESTS    = $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
EXAMPLES = $(patsubst examples/%.c,%,$(wildcard examples/*.c))

.PHONY: digits test check install uninstall clean examples bench bench-peers

digits: build/digits
	./build/digits

build/%: examples/%.c nn.h | build
	$(CC) -std=c99 $(CFLAGS) -Wall -Wextra $(STB:%=-isystem %) $< -o $@ $(LIBS)

build:
	mkdir -p build

examples: $(EXAMPLES:%=build/%)

# Tests of kernels are built with every table, in double too; the others with plain C, which compiles in a third of the time.
# -O1: they check numbers, not time.
KERNEL_TESTS = attention conv determinism golden norm ops rnn words
build/tests/test_%: tests/test_%.c tests/test.h tests/determinism.h $(wildcard tests/cases_*.h) nn.h | build
	@mkdir -p build/tests
	$(CC) -std=c11 -O1 -g -Wall -Wextra $(if $(filter $*,$(KERNEL_TESTS)),,-DNN_NO_SIMD) -I. $< -o $@ $(LIBS)

test:
	@$(MAKE) --no-print-directory -j$(JOBS) $(TESTS:%=build/tests/%)
	@tests/run.sh $(TESTS:%=build/tests/%)

build/bench: bench/bench.c bench/limit.h bench/measure.h nn.h | build
	$(CC) -O2 -I. $< -o $@ $(LIBS)

bench: build/bench
	./build/bench

bench-peers: build/bench
	@bench/peers.sh

install:
	mkdir -p $(DESTDIR)$(PREFIX)/include
	cp nn.h $(wildcard nn_cuda.h) $(DESTDIR)$(PREFIX)/include/

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/nn.h $(DESTDIR)$(PREFIX)/include/nn_cuda.h

clean:
	rm -rf build

check:
	@tests/check.sh
