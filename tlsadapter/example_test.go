package tlsadapter_test

import (
	"fmt"

	"gridstream/tlsadapter"
)

// A client and a server without a network: what one has to say is given to the other until both are established.
func Example() {
	client, server := tlsadapter.NewClient(clientConfig()), tlsadapter.NewServer(serverConfig())

	client.Feed(nil) // asks for the first step
	client.Step()
	for from, to := client, server; from.OutputLen() > 0; from, to = to, from {
		if to.State() == tlsadapter.StateHandshaking && to.Feed(from.TakeOutput(nil)) {
			if _, err := to.Step(); err != nil {
				fmt.Println(err)
			}
		}
	}
	fmt.Println(client.State(), server.State())

	// The session tickets, which came after the handshake, are still in the server's output.
	print := func(plain []byte) { fmt.Printf("%s\n", plain) }
	client.Open(server.TakeOutput(nil), print)

	client.Seal([]byte("hello"))
	server.Open(client.TakeOutput(nil), print)
	server.CloseNotify()
	fmt.Println(client.Open(server.TakeOutput(nil), print))
	// Output:
	// established established
	// hello
	// EOF
}
