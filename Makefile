# `make` alone lists the targets. CI (.ci/run) calls these and nothing else.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO        ?= go
FUZZTIME  ?= 10s
FUZZ      ?= .
DURATION  ?= 10m
BENCH     ?= .
BENCHPKGS ?= ./...

# The most that a function may weigh before it has to be taken apart.
COGNITION := 20

# Where the published client API and its checker lie, if they are at hand.
APICHECK ?= ../shared/apicheck

# A module of its own, so that nobody depends on its database.
SQLROW := fence/sqlrow

# What a stranger has: a module that uses only what is exported.
STRANGER := examples/stranger

TOOLS := internal/tools
TOOL  := $(GO) tool -modfile=$(TOOLS)/go.mod

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## compile every package
	$(GO) build ./...

.PHONY: test
test: ## run every test
	$(GO) test ./...
	$(GO) -C $(SQLROW) test ./...
	$(GO) -C $(STRANGER) test ./...

# The long tests are more rounds of the short ones, or begin processes that run
# without the detector. The short ones do fewer rounds under it, too: see raced in
# package testcluster. What takes longest comes first, or a processor would idle while it ends.
.PHONY: race
race: ## run the short tests under the race detector (needs a C compiler)
	$(GO) test -race -short -vet=off -timeout 20m ./testcluster ./...

.PHONY: race-long
race-long: ## run every test under the race detector
	$(GO) test -race -timeout 60m ./...

.PHONY: short20
short20: ## run the short tests of every package 20 times: finds flaky ones
	$(GO) test -short -count=20 ./...

.PHONY: lint
lint: lint-fmt lint-vet lint-static lint-size ## gofmt, go vet, staticcheck, gocognit

.PHONY: lint-fmt
lint-fmt:
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "not formatted by gofmt:"; echo "$$bad"; exit 1; fi

.PHONY: lint-vet
lint-vet:
	$(GO) vet ./...
	$(GO) -C $(TOOLS) vet ./...
	$(GO) -C $(SQLROW) vet ./...
	$(GO) -C $(STRANGER) vet ./...

.PHONY: lint-static
lint-static:
	$(TOOL) staticcheck ./...
	cd $(TOOLS) && $(GO) tool staticcheck ./...

.PHONY: lint-size
lint-size:
	$(TOOL) gocognit -exact-recursion -over $(COGNITION) -ignore '_test\.go$$|\.pb\.go$$' . $(TOOLS)

.PHONY: gen
gen: ## generate the Go code of all .proto files
	cd $(TOOLS) && $(GO) run ./protogen -root ../..

# Compares both ways: a file that nothing generates any more is a diff too.
.PHONY: verify-gen
verify-gen: ## fail if the committed generated code is not what gen makes
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	mkdir "$$tmp/committed" "$$tmp/generated"; \
	find . -name '*.pb.go' -print0 | tar -c --null -T - | tar -x -C "$$tmp/committed"; \
	root=$$PWD; (cd $(TOOLS) && $(GO) run ./protogen -root "$$root" -out "$$tmp/generated"); \
	if ! (cd "$$tmp" && diff -ru committed generated); then \
		echo "generated code is stale: run make gen"; exit 1; \
	fi; \
	echo "generated code is up to date"

.PHONY: bench
bench: ## run the benchmarks (BENCH=regexp, BENCHPKGS=packages)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(BENCHPKGS)

# An instrumented binary for each package, then four targets at a time with a worker
# each. What fails is shown, with the input, which lies in testdata/fuzz then. What
# is found to be of interest stays in Go's cache, for the next time.
.PHONY: fuzz
fuzz: ## run the fuzz targets (FUZZ=regexp), four at a time, for FUZZTIME each (10s)
	@bins=$$(mktemp -d); trap 'rm -rf "$$bins"' EXIT; cache=$$($(GO) env GOCACHE)/fuzz/$$($(GO) list -m); \
	grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed -E 's,/[^/]*:func , ,' | sort | \
	{ grep -E '$(FUZZ)' || true; } >"$$bins/targets"; \
	cut -d ' ' -f 1 "$$bins/targets" | uniq | while read -r dir; do \
		$(GO) test -c -fuzz=. -o "$$bins/$${dir//\//_}.test" "$$dir"; \
	done; \
	export bins cache; xargs -P 4 -n 2 bash -c ' \
		if (cd "$$0" && "$$bins/$${0//\//_}.test" -test.run="^\$$" -test.fuzz="^$$1\$$" -test.fuzztime=$(FUZZTIME) \
			-test.fuzzminimizetime=20x -test.fuzzcachedir="$$cache$${0#.}" -test.parallel=1) >"$$bins/$$1.log" 2>&1; \
		then echo "fuzz $$0 $$1: $$(grep -o "execs: .*" "$$bins/$$1.log" | tail -n 1)"; \
		else cat "$$bins/$$1.log"; echo "fuzz $$0 $$1: FAILED"; exit 1; fi' <"$$bins/targets"

# The cluster on one goroutine, on two processors, and the whole stack in virtual
# time. Of the first, FIRST=n tries the seeds from n on, otherwise they are drawn.
# RAFTLOCK_SIM_FOR=1h has each go on for so long: two hours in all. Without it, a
# run that hangs ends by the clock, with the seed that it was at.
SEEDS ?= 1000
FIRST ?=
SIM   := -test.v -test.artifacts -test.outputdir '$(CURDIR)/bin' -test.timeout $(if $(RAFTLOCK_SIM_FOR),0,$$((10 + $(SEEDS) / 100))m) -test.run
.PHONY: sim
sim: ## simulate SEEDS (1000) clusters on one goroutine, a tenth of that of the whole stack
	@mkdir -p bin; rm -f bin/sim-*.log
	@$(GO) test -c -o bin/replicas.test .
	@$(GO) test -c -o bin/stack.test ./testcluster
	@export GOGC=400 RAFTLOCK_SIM_SEEDS=$$((($(SEEDS) + 1) / 2)); \
	one=$(FIRST); other=$(if $(FIRST),$$(($(FIRST) + RAFTLOCK_SIM_SEEDS))); \
	{ RAFTLOCK_SIM_SEEDS=$$((($(SEEDS) + 9) / 10)) bin/stack.test $(SIM) '^TestSimulation$$' >bin/sim-stack.log 2>&1 && \
	RAFTLOCK_SIM_SEED=$$one bin/replicas.test $(SIM) '^TestSimulation$$' >bin/sim-1.log 2>&1; } & half=$$!; failed=; \
	RAFTLOCK_SIM_SEED=$$other bin/replicas.test $(SIM) '^TestSimulation' >bin/sim-2.log 2>&1 || failed=1; \
	wait $$half || failed=1; \
	for log in bin/sim-1.log bin/sim-2.log bin/sim-stack.log; do \
		if [ ! -e $$log ]; then continue; elif [ -n "$$failed" ]; then cat $$log; else grep -E '^ +sim[a-z_]*.go:|^ +faults|^ +changes|^(PASS|---) ' $$log | grep -v '/'; fi; \
	done; \
	[ -z "$$failed" ]

# The tests print what it takes to draw the same again. Where no strace can attach to a
# process, three faults are left out; NOTRACE=yes leaves them out anyway.
.PHONY: torture
torture: ## torment clusters of processes for DURATION (10m)
	@mkdir -p bin
	@notrace='$(NOTRACE)'; sleep 9 & pid=$$!; \
	attached=0; timeout 1 strace -qq -o /dev/null -p $$pid 2>/dev/null || attached=$$?; kill $$pid; \
	[ $$attached = 124 ] || notrace=yes; \
	[ -z "$$notrace" ] || echo 'torture: THREE FAULTS ARE LEFT OUT: without strace no disk fails, is slow or hangs'; \
	$(GO) test ./internal/e2e -run '^(TestTorture|TestKillAll)$$' -v -count=1 -timeout 0 -artifacts -outputdir '$(CURDIR)/bin' -e2e.torture=$(DURATION) $${notrace:+-e2e.notrace}

.PHONY: torture-disk
torture-disk: ## break each system call and byte of a member's life (half an hour)
	RAFTLOCK_EVERY=1 $(GO) test ./internal/walstore ./embed -run 'AtEverySystemCall$$|DamagedSnapshot' -v -count=1 -timeout 0

.PHONY: soak
soak: DURATION = 20m
soak: ## full rate for DURATION (20m): memory, goroutines, descriptors, disk; curves in bin/soak.svg
	@mkdir -p bin
	$(GO) test ./internal/e2e -run '^TestSoak$$' -v -count=1 -timeout 0 -e2e.soak=$(DURATION) -e2e.soak.out=$(CURDIR)/bin

.PHONY: cover
cover: ## measure how much of the code, generated aside, the tests reach
	@mkdir -p bin
	$(GO) test -coverprofile=bin/cover.all ./...
	@grep -v '\.pb\.go:' bin/cover.all >bin/cover.out
	$(GO) tool cover -func=bin/cover.out | tail -n 1

# Each breaks the code in one way, in the sight of the compiler only.
.PHONY: mutants
mutants: ## break the code in each listed way: the tests must notice (MUTANTS=regexp)
	cd $(TOOLS) && $(GO) run ./mutants -root ../.. -run '$(MUTANTS)'

.PHONY: mutants-check
mutants-check: ## see whether the list of mutants fits the source
	cd $(TOOLS) && $(GO) run ./mutants -root ../.. -check

.PHONY: apicheck
apicheck: ## compare package client with its published API
	@if [ -d '$(APICHECK)' ]; then \
		root=$$PWD; (cd '$(APICHECK)' && $(GO) run . "$$root/client"); \
	else \
		echo "apicheck: no published API at hand, nothing compared"; \
	fi
