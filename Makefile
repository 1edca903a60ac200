# steep: ingest.fcgi, query.fcgi and steep-monitor. README.md says what for.
#
#   make            the programs, into build/
#   make run        everything from this checkout, see deploy/run
#   make test       every suite, see tests/run
#   make soak       200 faults, a million events, 10,000 requests under valgrind; half an hour
#   make valgrind   the last of these alone
#   make monitor-soak  a million events through steep-monitor while all is killed; a quarter of an hour
#   make unit       the unit tests alone
#   make fuzz       the fuzz targets, each for FUZZ_SECONDS (60): all, or FUZZ_TARGETS
#   make bench      the measurements, see tests/bench/run (bench-quick: the short form)
#   make lint       formatting and static analysis
#   make install    by GNU's variables, see deploy/install.mk
#   make deb        the Debian packages
#
# WERROR=1 makes warnings errors; SANITIZE=address,undefined (or thread) builds
# with sanitizers, into a folder of its own.

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

PACKAGES = libpq libsodium json-c
PACKAGE_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES))
PACKAGE_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES))
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -DSTEEP_VERSION='"$(VERSION)"' -DSTEEP_SCHEMA='"$(SCHEMA)"' $(WARNINGS) $(HARDENING) \
	$(SANITIZERS) -pthread $(PACKAGE_CFLAGS) $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro -Wl,-z,now -Wl,--as-needed $(SANITIZERS) -pthread $(LDFLAGS)
FLAGS = $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBRARIES)
LIBRARIES = -lfcgi $(PACKAGE_LIBS) -lm

# What both programs have, and what each has besides.
PROCESS = service workers listener status metrics notify request reply error config log clock
CREDENTIALS = keyring refresh schema signature bearer database connection sqlstate
INGEST = ingest batch splitter skim event textarray rfc3339 utf8 $(CREDENTIALS) $(PROCESS)
QUERY = query window utf8 $(CREDENTIALS) $(PROCESS)

# The monitor judges events by the same files as ingest.fcgi.
SPOOL = spool spool_reader recovery cursor segment record files
MONITOR = $(addprefix monitor_,monitor options input follow intake complete rejected sender outgoing \
	post answer keys status $(SPOOL)) batch splitter skim event rfc3339 utf8 signature error config log clock

# A unit test needs the file it tests, and what that one needs.
UNIT_batch = batch splitter skim event rfc3339 utf8 error
UNIT_bearer = bearer
UNIT_answer = monitor_answer
UNIT_config = config log
UNIT_complete = monitor_complete $(UNIT_batch)
UNIT_error = error
UNIT_event = $(UNIT_batch)
UNIT_input = $(addprefix monitor_,input follow record) log unit_folder
UNIT_json = $(UNIT_batch)
UNIT_keyring = keyring signature
UNIT_log = log
UNIT_metrics = metrics reply error request clock
UNIT_recovery = $(addprefix monitor_,$(SPOOL) outgoing) log clock unit_folder
UNIT_reply = reply error request clock
UNIT_rfc3339 = rfc3339
UNIT_signature = signature
UNIT_skim = skim splitter event rfc3339 utf8
UNIT_splitter = splitter
UNIT_spool = $(addprefix monitor_,$(SPOOL) outgoing) log clock unit_folder
UNIT_sqlstate = sqlstate
UNIT_textarray = textarray
UNIT_utf8 = utf8
UNIT_window = window utf8
UNITS = answer batch bearer complete config error event input json keyring log metrics recovery reply rfc3339 signature skim splitter \
	spool sqlstate textarray utf8 window

# What each fuzz target needs besides; clang builds them, see tests/fuzz/run.
FUZZ_batch = splitter skim event rfc3339 utf8 error fuzz_mutator fuzz_values
FUZZ_bearer = bearer
FUZZ_config = config log
FUZZ_judges = $(FUZZ_batch) sqlstate fuzz_exact
FUZZ_keyring = keyring signature
FUZZ_rfc3339 = rfc3339
FUZZ_signature = signature
FUZZ_spool = $(addprefix monitor_,recovery cursor segment record files) log
FUZZ_window = window utf8
FUZZERS = batch bearer config judges keyring rfc3339 signature spool window

# The bench's load generator.
LOAD = load bodies https direct

objects = $(patsubst %,$(BUILD)/%.o,$(1))

all: $(BUILD)/ingest.fcgi $(BUILD)/query.fcgi $(BUILD)/steep-monitor

$(BUILD)/ingest.fcgi: $(call objects,$(INGEST))
$(BUILD)/query.fcgi: $(call objects,$(QUERY))
$(BUILD)/%.fcgi: $(BUILD)/flags
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(LIBRARIES)

$(BUILD)/steep-monitor: $(call objects,$(MONITOR)) $(BUILD)/flags
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -lcurl $(PACKAGE_LIBS) -lm

# The flags are a prerequisite, so that other ones build anew.
$(BUILD)/%.o: fcgi/%.c $(BUILD)/flags
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/monitor_%.o: deploy/monitor/%.c $(BUILD)/flags
	$(CC) $(ALL_CFLAGS) -Ifcgi -MMD -MP -c -o $@ $<

$(BUILD)/unit_%.o: tests/unit/%.c $(BUILD)/flags
	$(CC) $(ALL_CFLAGS) -Ifcgi -Ideploy/monitor -MMD -MP -c -o $@ $<

$(BUILD)/fuzz_%.o: tests/fuzz/%.c $(BUILD)/flags
	$(CC) $(ALL_CFLAGS) -Ifcgi -Ideploy/monitor -MMD -MP -c -o $@ $<

$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' >$@

define unit_rule
$(BUILD)/unit_$(1): $(BUILD)/unit_$(1).o $(call objects,$(UNIT_$(1))) $(BUILD)/flags
	$$(CC) $$(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) -lcmocka $$(LIBRARIES)
endef
$(foreach unit,$(UNITS),$(eval $(call unit_rule,$(unit))))

define fuzz_rule
$(BUILD)/fuzz_$(1): $(BUILD)/fuzz_$(1).o $(call objects,$(FUZZ_$(1))) $(BUILD)/flags
	$$(CC) $$(ALL_LDFLAGS) -fsanitize=fuzzer -o $$@ $$(filter %.o,$$^) $$(LIBRARIES)
endef
$(foreach fuzzer,$(FUZZERS),$(eval $(call fuzz_rule,$(fuzzer))))

$(BUILD)/load: $(LOAD:%=$(BUILD)/bench_%.o) $(BUILD)/flags
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -lcurl $(PACKAGE_LIBS)

$(BUILD)/bench_%.o: tests/bench/%.c $(BUILD)/flags
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

unit: $(UNITS:%=$(BUILD)/unit_%)
	@status=0; for t in $^; do CMOCKA_MESSAGE_OUTPUT=TAP "$$t" || status=1; done; exit $$status

run:
	deploy/run

test:
	tests/run

fuzz:
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) FUZZ_TARGETS='$(FUZZ_TARGETS)' tests/run fuzz

soak:
	tests/run soak valgrind

valgrind:
	tests/run valgrind

monitor-soak:
	tests/run monitor-soak

bench:
	tests/bench/run

bench-quick:
	tests/bench/run --quick

lint:
	tests/lint

clean:
	rm -rf $(BUILD)

include deploy/install.mk

.DELETE_ON_ERROR:
FORCE:
.PHONY: all unit run test fuzz soak valgrind monitor-soak bench bench-quick lint clean FORCE
.SECONDARY:
-include $(wildcard $(BUILD)/*.d)
