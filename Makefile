# steep: ingest.fcgi, query.fcgi and steep-monitor. README.md says what for.
#
#   make               build the programs into build/
#   make run           serve everything from this checkout, see deploy/run
#   make test          run every suite, see tests/run
#   make unit          run the unit tests only
#   make contract      the tests of the HTTP contract against each installation of several machines
#   make scale         front ends, poolers, a standby and shards, broken under load; two minutes
#   make fuzz          fuzz each target for FUZZ_SECONDS (60): all, or FUZZ_TARGETS
#   make fuzz-merge    add to tests/fuzz/corpus the inputs found that cover more code
#   make soak          200 faults under a million events, 200 rounds of scale, valgrind, thousands
#                      of groups of batches, and a million events of Supabase; an hour
#   make valgrind      10,000 requests under valgrind
#   make monitor-soak  a million events through steep-monitor under faults; a quarter of an hour
#   make bench         measure, see tests/bench/run (bench-quick: four minutes)
#   make bench-fleet   measure with fleets of monitors: FLEET (1000 5000 10000); nine minutes
#   make bench-plan    make bench, and renew deploy/SCALING.md and its results from it
#   make lint          check formatting and run the static analysers
#   make install       install by GNU's variables, see deploy/install.mk
#   make deb           build the Debian packages into build/
#   make clean         remove build/
#   make help          print this
#
# WERROR=1 makes warnings errors; SANITIZE=address,undefined (or thread) builds
# with sanitizers, into its own folder under build/.

VERSION = 0.1.0
SCHEMA = $(notdir $(lastword $(sort $(wildcard sql/migrations/*.sql))))
SANITIZE ?=
WERROR ?=
comma = ,
BUILD ?= build$(if $(SANITIZE),/$(subst $(comma),-,$(SANITIZE)))

CC ?= cc
PKG_CONFIG ?= pkg-config
CFLAGS ?= -O2 -g
WARNINGS = -Wall -Wextra -Wshadow -Wconversion -Wformat=2 -Wstrict-prototypes \
	-Wmissing-prototypes -Wcast-qual -Wwrite-strings -Wvla $(if $(WERROR),-Werror)
HARDENING = -fstack-protector-strong -fPIE $(if $(SANITIZE),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
SANITIZERS = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)

# The oldest versions that are tested.
REQUIRED = fcgi/2.4.2 libpq/15 libsodium/1.0.18 json-c/0.16 zlib/1.2.13 sqlite3/3.40 libcurl/7.88
PACKAGES = libpq libsodium json-c zlib sqlite3
PACKAGE_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES) 2>/dev/null)
PACKAGE_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES) 2>/dev/null)
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -DSTEEP_VERSION='"$(VERSION)"' -DSTEEP_SCHEMA='"$(SCHEMA)"' $(WARNINGS) $(HARDENING) \
	$(SANITIZERS) -pthread $(PACKAGE_CFLAGS) $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro -Wl,-z,now -Wl,--as-needed $(SANITIZERS) -pthread $(LDFLAGS)
FLAGS = $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBRARIES) $(ROOMS) $(SENDER)
LIBRARIES = -lfcgi $(PACKAGE_LIBS)

# Each program is its main and what the linker takes from the archives: rooms.a holds
# the rooms of fcgi/, sender.a the rest of deploy/monitor. Each unit test and fuzz target
# is one file and its suite's helpers.
objects = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(1)))
ROOMS = $(call objects,fcgi/*/*.c)
SENDER = $(filter-out %/monitor.o,$(call objects,deploy/monitor/*.c))
UNIT_HELPERS = $(BUILD)/tests/unit/folder.o
FUZZ_HELPERS = $(addprefix $(BUILD)/tests/fuzz/,exact.o mutator.o values.o)
UNITS = $(basename $(filter-out $(UNIT_HELPERS),$(call objects,tests/unit/*.c)))
FUZZERS = $(basename $(filter-out $(FUZZ_HELPERS),$(call objects,tests/fuzz/*.c)))

all: $(BUILD)/ingest.fcgi $(BUILD)/query.fcgi $(BUILD)/steep-monitor

LINK = $(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^)

$(BUILD)/%.fcgi: $(BUILD)/fcgi/%.o $(BUILD)/rooms.a $(BUILD)/flags
	$(LINK) $(LIBRARIES)

$(BUILD)/steep-monitor: $(BUILD)/deploy/monitor/monitor.o $(BUILD)/sender.a $(BUILD)/rooms.a $(BUILD)/flags
	$(LINK) -lcurl $(PACKAGE_LIBS)

$(UNITS): %: %.o $(UNIT_HELPERS) $(BUILD)/sender.a $(BUILD)/rooms.a $(BUILD)/flags
	$(LINK) -lcmocka $(LIBRARIES)

$(FUZZERS): %: %.o $(FUZZ_HELPERS) $(BUILD)/sender.a $(BUILD)/rooms.a $(BUILD)/flags
	$(LINK) -fsanitize=fuzzer $(LIBRARIES)

# The bench's load generator, and what slows its PostgreSQL down.
$(BUILD)/load: $(filter-out %/slow_commits.o %/fleet.o %/lookups.o,$(call objects,tests/bench/*.c)) $(BUILD)/flags
	$(LINK) -lcurl $(PACKAGE_LIBS)

$(BUILD)/fleet: $(BUILD)/tests/bench/fleet.o $(BUILD)/tests/bench/bodies.o $(BUILD)/flags
	$(LINK) -lssl -lcrypto $(PACKAGE_LIBS)

$(BUILD)/lookups: $(BUILD)/tests/bench/lookups.o $(BUILD)/rooms.a $(BUILD)/flags
	$(LINK) $(LIBRARIES)

$(BUILD)/slow_commits.so: tests/bench/slow_commits.c $(BUILD)/flags
	$(CC) $(ALL_CFLAGS) -fPIC -shared -o $@ $<

$(BUILD)/rooms.a: $(ROOMS)
$(BUILD)/sender.a: $(SENDER)
%.a:
	rm -f $@
	$(AR) rcs $@ $^

# Other flags or files build all anew.
$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Ifcgi -Ideploy -MMD -MP -c -o $@ $<

$(BUILD)/flags: FORCE
	@status=0; for library in $(REQUIRED); do \
		name=$${library%/*} version=$${library#*/}; \
		$(PKG_CONFIG) --exists "$$name >= $$version" && continue; \
		found=$$($(PKG_CONFIG) --modversion "$$name" 2>/dev/null || echo none); \
		echo "make: $$name $$version or newer is required; $(PKG_CONFIG) finds $$found" >&2; status=1; \
	done; exit $$status
	@mkdir -p $(BUILD)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' >$@

unit: $(UNITS)
	@status=0; for t in $^; do CMOCKA_MESSAGE_OUTPUT=TAP "$$t" || status=1; done; exit $$status

run:
	deploy/run

test:
	tests/run

contract:
	tests/run contract

scale:
	tests/run scale

fuzz:
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) FUZZ_TARGETS='$(FUZZ_TARGETS)' tests/run fuzz

fuzz-merge:
	FUZZ_MERGE=1 tests/run fuzz

soak:
	tests/run soak valgrind
	BATCHES=20000 SUPABASE_EVENTS=1000000 PYTEST="-k 'each_of_thousands or supabase'" tests/run e2e

valgrind:
	tests/run valgrind

monitor-soak:
	tests/run monitor-soak

bench:
	tests/bench/run

bench-quick:
	tests/bench/run --quick

bench-plan: bench
	tests/bench/plan --renew

bench-fleet:
	tests/bench/fleet $(or $(FLEET),1000 5000 10000)

lint:
	tests/lint

clean:
	rm -rf $(BUILD)

help:
	@sed -n '3,/^$$/s/^# \{0,1\}//p' Makefile

include deploy/install.mk

.DELETE_ON_ERROR:
FORCE:
.PHONY: all unit run test contract scale fuzz fuzz-merge soak valgrind monitor-soak bench bench-quick bench-plan bench-fleet lint clean help FORCE
.SECONDARY:
-include $(shell find $(BUILD) -name "*.d" 2>/dev/null)
