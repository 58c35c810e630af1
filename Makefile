# make run: a container in two commands.  make test: everything.  make help: the rest.
# `make lab SHELL=1` asks for a shell in the lab, not for another one here.
LAB_SHELL := $(if $(filter command,$(firstword $(origin SHELL))),$(filter-out 0,$(SHELL)))
override SHELL := /bin/bash
TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# The runtime under test; `make test-integration RUNTIME=runc` takes the packaged one.
RUNTIME ?= $(CURDIR)/bin/corten
# The shim under test; SHIM=/usr/bin/containerd-shim-runc-v2 takes the packaged one.
SHIM ?= $(CURDIR)/bin/containerd-shim-corten-v2
SUITE ?=
LAB_SUITES ?=
BINARIES := corten containerd-shim-corten-v2
OUT := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/$(TARGET)/release
export RUNTIME SHIM TARGET
# What `corten --version` says it was built from.
export CORTEN_COMMIT ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

.PHONY: help build run test test-unit test-integration test-v2 lab attacks faults older-kernels fuzz lint install man install-man bench bench-shim soak conformance clean

help:
	@echo 'build              bin/corten and the shim, static and stripped'
	@echo 'run                a container from bundles/hello'
	@echo 'test               everything, as root; ends with a summary line'
	@echo 'test-unit          tests inside the crates'
	@echo 'test-integration   SUITE=name (all suites without), RUNTIME=path or name'
	@echo 'test-v2            suites on the cgroup v2 tree of a host with v1: SUITE=name'
	@echo 'lab                the suites under systemd and cgroup v2, in a virtual machine: LAB_SUITES="names", SHELL=1'
	@echo 'faults             every fault at every point: points tried, failures, leaks'
	@echo 'attacks            the suite security, every variant, each race over 10^5 swaps'
	@echo 'older-kernels      the suites while newer system calls answer ENOSYS and EPERM: CALLS="some"'
	@echo 'fuzz               FUZZ_RUNS=1000000 executions of each fuzz target, TARGETS=some'
	@echo 'lint               formatting and clippy'
	@echo 'install            PREFIX=$(PREFIX) DESTDIR='
	@echo 'man, install-man   man pages and shell completions'
	@echo 'bench              against the packaged crun and runc'
	@echo 'bench-shim         the shim against the packaged one with crun and runc'
	@echo 'soak               100,000 exits while containerd is down, slow or killed; SOAK_ARGS="EXITS SEED"'
	@echo 'conformance        VALIDATION=dir with runtime-tools validation programs'

build: | tools
	@$(CARGO) build --quiet --release --target $(TARGET) -p corten -p containerd-shim-corten -p corten-probe
	@mkdir -p bin
	@for name in $(BINARIES); do \
	  install -m 0755 $(OUT)/$$name bin/.$$name.new && mv -f bin/.$$name.new bin/$$name || exit 1; \
	done

# A linker and the static C library are all that Rust needs from the system.
.PHONY: tools
tools:
	@scripts/need-packages build

run: build
	@scripts/run-hello

test: | tools
	@scripts/test unit deny fuzz integration v2 managers lab

test-unit: | tools
	@scripts/test unit

test-integration: | tools
	@scripts/test integration $(SUITE)

# Where /sys/fs/cgroup is cgroup v2 without controllers, as every host with v1 has it.
test-v2: | tools
	@scripts/test v2 $(SUITE)

# A Debian 12 without hardware support; scripts/lab --help.
lab: | tools
	@scripts/lab $(if $(LAB_SHELL),--shell) $(LAB_SUITES)

# Every point and every race, on v1 and on v2, some hours. Tells `N points tried, N failures, N leaks` at its end.
faults: | tools
	@CORTEN_FAULTS_STEP=1 scripts/test integration faults v2 faults

attacks: | tools
	@CORTEN_ATTACKS_SWAPS=100000 scripts/test integration security

older-kernels: | tools
	@scripts/older-kernels $(CALLS)

# libFuzzer with the stable toolchain; scripts/fuzz tells the rest.
fuzz: | tools
	@scripts/fuzz $(TARGETS)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets --target $(TARGET) -- -D warnings

install: build
	@for name in $(BINARIES); do install -D -m 0755 bin/$$name $(DESTDIR)$(PREFIX)/bin/$$name || exit 1; done

# Man pages and completions of bash, fish and zsh, made from the command line's own tables.
man: | tools
	@$(CARGO) run --quiet --target $(TARGET) -p corten --example manual -- man

install-man: man
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man1 man/*.1
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man8 docs/*.8
	install -D -m 0644 man/corten.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/corten
	install -D -m 0644 man/corten.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/corten.fish
	install -D -m 0644 man/corten.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_corten

bench: build
	@scripts/need-packages peers
	$(CARGO) build --quiet --release --target $(TARGET) -p corten-bench
	$(OUT)/bench $(BENCH_ARGS)

bench-shim: build
	@scripts/need-packages peers shims
	$(CARGO) build --quiet --release --target $(TARGET) -p corten-bench
	$(OUT)/bench-shim $(BENCH_ARGS)

soak: build
	@scripts/need-packages integration
	$(CARGO) build --quiet --release --target $(TARGET) -p corten-bench
	$(OUT)/soak $(SOAK_ARGS)

conformance: build
	@scripts/conformance $(VALIDATION)

clean:
	$(CARGO) clean
	rm -rf bin bundles/*/rootfs
