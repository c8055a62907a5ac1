PLAYERS   ?= 1000
SECONDS   ?= 10
FUZZTIME  ?= 10s
BENCHTIME ?= 200ms
ROUNDS    ?= 3
COUNT     ?= 1
MINUTES   ?= 2

# ST1005: an error may begin with the name of a field.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2 -checks inherit,-ST1005
PLATFORMS   = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 freebsd/amd64 freebsd/arm64
STDNET      = windows/amd64 # no epoll or kqueue: for driver/stdnet and what it imports

.PHONY: help demo test check race fuzz chaos soak bench bench-smoke bench-report cross tidy

# Modules of their own, so that who embeds the driver does not inherit what they need.
MODULES = bench/peers bench/report bench/chaos

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{if (!seen[$$1]++) printf "make %-12s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Not go run: it fails on Ctrl-C, whatever the demo makes of it.
demo: ## a server and its players on this host (PLAYERS=1000 SECONDS=10; TLS=1 secures it)
	@go build -o bench/demo/demo.out ./bench/demo
	@exec bench/demo/demo.out -players $(PLAYERS) -seconds $(SECONDS) $(if $(filter-out 0,$(TLS)),-tls)

test: ## all tests
	go test -count=1 -timeout 8m ./...

check: ## gofmt, vet, staticcheck, tidy go.mod; changes nothing
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not gofmt'ed:"; echo "$$files"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go mod tidy -diff
	@for module in $(MODULES); do \
		echo "$$module"; \
		(cd $$module && go vet ./... && go run $(STATICCHECK) ./... && go mod tidy -diff) || exit 1; \
	done

race: ## all tests with the race detector, in random order (COUNT=1), but for pairs of implementations that each have had theirs (MIXED=1: these too), and some of chaos
	go test -race -shuffle=on -count=$(COUNT) $(if $(MIXED),,-skip TestMixedConformance) -timeout 15m ./...
	cd bench/chaos && go test -race -short -count=$(COUNT) -run 'Proxies|Proxy|Cut|Resets' -timeout 5m ./...

fuzz: ## every fuzz target for FUZZTIME=10s
	@list=$$(go test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	echo "$$list" | awk '/^Fuzz/ {names[++n] = $$1} /^ok/ {for (i = 1; i <= n; i++) print $$2, names[i]; n = 0}' | \
	while read -r package name; do \
		echo "$$package $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package" || exit 1; \
	done

chaos: ## proxies and wires that injure, and attackers, between drivers: docs/reliability.md (SHORT=1: attacks that last a second)
	cd bench/chaos && go test -count=1 $(if $(SHORT),-short) -timeout 15m ./...

soak: ## thousands of players come and go for MINUTES=2; fails where the servers grow
	cd bench/chaos && go run ./soak -minutes $(MINUTES)

ifdef CONNS
bench: ## all benchmarks with real sizes, minutes (BENCHTIME=200ms); CONNS=1000000: so many connections instead, as far as limits allow
	go test -run '^$$' -bench '^BenchmarkConnections$$' -benchtime 1x -timeout 2h ./bench -args -conns $(CONNS)
else
bench: ## all benchmarks with real sizes, minutes (BENCHTIME=200ms); CONNS=1000000: so many connections instead, as far as limits allow
	go test -run '^$$' -bench . -benchtime $(BENCHTIME) -timeout 30m ./...
	cd bench/peers && go test -run '^$$' -bench . -benchtime $(BENCHTIME) -timeout 30m ./...
endif

bench-smoke: ## each benchmark once and small, the rival frameworks' too, and no allocation in the steady state
	go test -short -run '^TestSteadyState|^TestEventDispatch' -bench . -benchtime 1x -timeout 3m ./bench/...
	cd bench/peers && go test -short -bench . -benchtime 1x -timeout 3m ./...
	cd bench/report && go test -timeout 1m ./...

bench-report: ## all benchmarks, the rival frameworks' too, ROUNDS=3 times; draws docs/benchmarks.md
	cd bench/report && go run . -rounds $(ROUNDS) -benchtime $(BENCHTIME)

cross: ## build and vet, tests included, for every platform
	@for platform in $(PLATFORMS); do \
		echo "$$platform"; \
		export CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		go build ./... && go vet ./... || exit 1; \
	done
	@for platform in $(STDNET); do \
		echo "$$platform (driver/stdnet)"; \
		export CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		go build ./driver/stdnet ./driver/examples/... && go vet ./driver/... || exit 1; \
	done

tidy: ## go mod tidy, gofmt
	go mod tidy
	@for module in $(MODULES); do (cd $$module && go mod tidy) || exit 1; done
	gofmt -w .
