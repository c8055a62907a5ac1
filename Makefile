PLAYERS   ?= 1000
SECONDS   ?= 10
FUZZTIME  ?= 10s
BENCHTIME ?= 200ms
COUNT     ?= 1

# ST1005: an error may begin with the name of a field.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2 -checks inherit,-ST1005
PLATFORMS   = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 freebsd/amd64 freebsd/arm64
STDNET      = windows/amd64 # no epoll or kqueue: for driver/stdnet and what it imports

.PHONY: help demo test check race fuzz bench cross tidy

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-6s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Not go run: it fails on Ctrl-C, whatever the demo makes of it.
demo: ## a server and its players on this host (PLAYERS=1000 SECONDS=10; TLS=1 secures it)
	@go build -o bench/demo/demo.out ./bench/demo
	@exec bench/demo/demo.out -players $(PLAYERS) -seconds $(SECONDS) $(if $(filter-out 0,$(TLS)),-tls)

test: ## all tests
	go test -count=1 -timeout 15m ./...

check: ## gofmt, vet, staticcheck, tidy go.mod; changes nothing
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not gofmt'ed:"; echo "$$files"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go mod tidy -diff

race: ## all tests with the race detector, in random order (COUNT=1)
	go test -race -shuffle=on -count=$(COUNT) -timeout 30m ./...

fuzz: ## every fuzz target for FUZZTIME=10s
	@list=$$(go test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	echo "$$list" | awk '/^Fuzz/ {names[++n] = $$1} /^ok/ {for (i = 1; i <= n; i++) print $$2, names[i]; n = 0}' | \
	while read -r package name; do \
		echo "$$package $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package" || exit 1; \
	done

bench: ## all benchmarks (BENCHTIME=200ms)
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

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
	gofmt -w .
