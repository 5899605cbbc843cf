# make digits   trains on real handwritten digits        make test    the fast tests        make check   everything that CI runs
CC      ?= cc
CXX     ?= c++
CFLAGS  ?= -O2
LIBS     = -lm -lpthread
WARN     = -Wall -Wextra -Wpedantic -Wshadow -Wconversion
PREFIX  ?= /usr/local
JOBS    ?= $(shell nproc 2>/dev/null || echo 1)
TESTS    = $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
EXAMPLES = $(patsubst examples/%.c,%,$(wildcard examples/*.c))

.PHONY: digits test check install uninstall clean examples

digits: build/digits
	./build/digits

build/%: examples/%.c nn.h | build
	$(CC) -std=c99 $(CFLAGS) -I. $< -o $@ $(LIBS)

build:
	mkdir -p build

examples: $(EXAMPLES:%=build/%)

# Tests are built with every kernel table, in double too. -O1: they check numbers, not time.
build/tests/%: tests/%.c tests/test.h $(wildcard tests/cases_*.h) nn.h | build
	@mkdir -p build/tests
	$(CC) -std=c11 -O1 -g $(WARN) -Wno-conversion -Wno-shadow -I. $< -o $@ $(LIBS)

test:
	@$(MAKE) --no-print-directory -j$(JOBS) $(TESTS:%=build/tests/%)
	@tests/run.sh $(TESTS:%=build/tests/%)

install:
	mkdir -p $(DESTDIR)$(PREFIX)/include
	cp nn.h $(wildcard nn_cuda.h) $(DESTDIR)$(PREFIX)/include/

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/nn.h $(DESTDIR)$(PREFIX)/include/nn_cuda.h

clean:
	rm -rf build

check:
	@tests/check.sh
