package bench

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkEcho is packets sent back as fast as they come, with depth of them under way on each connection.
func BenchmarkEcho(b *testing.B) {
	const size = 64
	for _, secure := range []bool{false, true} {
		for _, conns := range []int{100, 1000} {
			for _, depth := range []int{1, 16} {
				n := scaled(conns)
				var more []string
				if depth > 1 {
					more = append(more, unbatched)
				}
				name := fmt.Sprintf("tls=%s/conns=%d/depth=%d/size=%d/", onOff(secure), n, depth, size)
				forEachImpl(b, name, func(b *testing.B, impl string) {
					s := startServer(b, impl, serverOptions{id: identityFor(secure)})
					defer s.close()
					load := startClients(b, role{Kind: "echo", Addr: s.addr, TLS: secure, Conns: n, Size: size, Depth: depth})
					defer load.end()
					o, used := run(b, load, 100*time.Millisecond)
					report(b, o, used, "msgs")
				}, more...)
			}
		}
	}
}
