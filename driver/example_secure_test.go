package driver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"log"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

const tlsDocument = "../docs/tls.md"

// documented are the examples of docs/tls.md, which has parts of them, with the files that its commands make.
var documented = map[string]func(){
	"ExampleSecureStream_privateAuthority":  ExampleSecureStream_privateAuthority,
	"ExampleSecureStream_serverName":        ExampleSecureStream_serverName,
	"ExampleSecureStream_systemRoots":       nil, // needs a certificate of a public authority
	"ExampleSecureStream_mutual":            ExampleSecureStream_mutual,
	"ExampleSecureStream_development":       ExampleSecureStream_development,
	"ExampleSecureStream_ReloadSecurity":    nil, // waits for a signal
	"ExampleSecureDesc_tlsConfig":           ExampleSecureDesc_tlsConfig,
	"ExampleSecureDesc_withoutVerification": ExampleSecureDesc_withoutVerification,
	"Example_secureServer":                  nil, // on a port that may be taken
}

func TestTLSDocument(t *testing.T) {
	needOpenSSL3(t)
	source, err := os.ReadFile("example_secure_test.go")
	require.NoError(t, err)
	text, err := os.ReadFile(tlsDocument)
	require.NoError(t, err)
	blocks := strings.Split(string(text), "```")
	t.Chdir(t.TempDir())
	shown := map[string]bool{}
	for i := 1; i < len(blocks); i += 2 {
		before := strings.TrimSpace(blocks[i-1])
		switch language, block, _ := strings.Cut(blocks[i], "\n"); {
		case language == "sh" && strings.HasSuffix(before, "<!-- run -->"):
			out, err := exec.Command("sh", "-ec", block).CombinedOutput()
			require.NoError(t, err, "%s\n%s", block, out)
		case language == "go":
			name := before[strings.LastIndex(before, "<!-- ")+len("<!-- "):]
			name = strings.TrimSuffix(name, " -->")
			_, body, found := strings.Cut(string(source), "\nfunc "+name+"(")
			require.True(t, found, name)
			body, _, _ = strings.Cut(body, "\n}\n")
			require.Contains(t, strings.ReplaceAll(body, "\n\t", "\n"), "\n"+strings.TrimRight(block, "\n"), name)
			shown[name] = true
		}
	}
	require.FileExists(t, filepath.Join(".", "ca.pem"))
	for name, example := range documented {
		require.True(t, shown[name], "%s has no %s", tlsDocument, name)
		if example != nil {
			t.Run(name, func(*testing.T) { example() })
		}
	}
}

// read is a file's content.
func read(name string) []byte {
	b, err := os.ReadFile(name)
	if err != nil {
		log.Panic(err)
	}
	return b
}

// meet has a client connect to a server, and a packet reach it.
func meet(serverDesc, clientDesc driver.SecureDesc) {
	server, err := driver.NewSecure(driver.Config{OnPacket: func(c driver.Conn, packet []byte) { _ = c.Send(packet) }})
	if err != nil {
		log.Panic(err)
	}
	defer server.Close()
	if err := server.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, serverDesc); err != nil {
		log.Panic(err)
	}
	if err := server.StartListen(0); err != nil {
		log.Panic(err)
	}

	client, err := driver.NewSecure(driver.Config{})
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	client.Events().Subscribe(driver.SubscriberFuncs{
		Established:  func(ev driver.Event) { _ = ev.Conn.Send([]byte("hello")) },
		Disconnected: func(ev driver.Event) { cancel(ev.Reason) },
	})
	if err := client.InitializeSecurity(driver.Bind{Address: "127.0.0.1"}, clientDesc); err != nil {
		log.Panic(err)
	}
	if err := client.ConnectTo(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.Port())); err != nil {
		log.Panic(err)
	}
	if err := client.WaitForData(ctx); err != nil {
		log.Panic(err, context.Cause(ctx))
	}
}

// A private authority, and no names: GridMate's model.
func ExampleSecureStream_privateAuthority() {
	server := driver.SecureDesc{
		CertificatePEM: read("server.pem"),
		PrivateKeyPEM:  read("server-key.pem"),
	}
	client := driver.SecureDesc{
		CertificateAuthorityPEM: read("ca.pem"),
	}
	meet(server, client)
}

// A private authority, and the server's name.
func ExampleSecureStream_serverName() {
	server := driver.SecureDesc{
		CertificatePEM: read("named.pem"),
		PrivateKeyPEM:  read("server-key.pem"),
	}
	client := driver.SecureDesc{
		CertificateAuthorityPEM: read("ca.pem"),
		ServerName:              "game.example.com",
	}
	meet(server, client)
}

// A certificate of a public authority.
func ExampleSecureStream_systemRoots() {
	server := driver.SecureDesc{
		CertificatePEM: read("/etc/letsencrypt/live/game.example.com/fullchain.pem"),
		PrivateKeyPEM:  read("/etc/letsencrypt/live/game.example.com/privkey.pem"),
	}
	client := driver.SecureDesc{
		ServerName: "game.example.com",
	}
	meet(server, client)
}

// Clients with certificates, too.
func ExampleSecureStream_mutual() {
	server := driver.SecureDesc{
		CertificatePEM:          read("server.pem"),
		PrivateKeyPEM:           read("server-key.pem"),
		CertificateAuthorityPEM: read("ca.pem"),
		AuthenticateClient:      true,
	}
	client := driver.SecureDesc{
		CertificatePEM:          read("client.pem"),
		PrivateKeyPEM:           read("client-key.pem"),
		CertificateAuthorityPEM: read("ca.pem"),
	}
	meet(server, client)
}

// A self-signed certificate that is its own authority.
func ExampleSecureStream_development() {
	server := driver.SecureDesc{
		CertificatePEM: read("development.pem"),
		PrivateKeyPEM:  read("development-key.pem"),
	}
	client := driver.SecureDesc{
		CertificateAuthorityPEM: read("development.pem"),
	}
	meet(server, client)
}

// New certificates without a restart: kill -HUP.
func ExampleSecureStream_ReloadSecurity() {
	server, err := driver.NewSecure(driver.Config{})
	if err != nil {
		log.Panic(err)
	}
	renewed := make(chan os.Signal, 1)
	signal.Notify(renewed, syscall.SIGHUP)
	for range renewed {
		err := server.ReloadSecurity(driver.SecureDesc{
			CertificatePEM: read("server.pem"),
			PrivateKeyPEM:  read("server-key.pem"),
		})
		if err != nil {
			log.Print(err) // the old certificate stays in use
		}
	}
}

// The last word on the tls.Config: TLS 1.3 only, ALPN, and ticket keys that outlive a reload.
func ExampleSecureDesc_tlsConfig() {
	ticketKey := [32]byte(read("ticket.key"))
	lastWord := func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS13
		c.NextProtos = []string{"mygame/1"}
		c.SetSessionTicketKeys([][32]byte{ticketKey})
	}
	server := driver.SecureDesc{
		CertificatePEM: read("server.pem"),
		PrivateKeyPEM:  read("server-key.pem"),
		TLSConfig:      lastWord,
	}
	client := driver.SecureDesc{
		CertificateAuthorityPEM: read("ca.pem"),
		TLSConfig:               lastWord,
	}
	meet(server, client)
}

// Not for production: anybody between the client and the server reads and changes everything.
func ExampleSecureDesc_withoutVerification() {
	server := driver.SecureDesc{
		CertificatePEM: read("development.pem"),
		PrivateKeyPEM:  read("development-key.pem"),
	}
	client := driver.SecureDesc{
		TLSConfig: func(c *tls.Config) { c.InsecureSkipVerify = true },
	}
	meet(server, client)
}

// A server's certificates as its clients will see them: what is wrong is told before anybody connects.
func ExampleSecureDesc() {
	d, err := driver.NewSecure(driver.Config{})
	if err != nil {
		log.Panic(err)
	}
	defer d.Close()
	err = d.InitializeSecurity(driver.Bind{}, driver.SecureDesc{
		CertificatePEM: bytes.Repeat([]byte("?"), 80),
		PrivateKeyPEM:  []byte("secret"),
	})
	log.New(os.Stdout, "", 0).Print(err)
	// Output: driver: InitializeSecurity: SecureDesc.CertificatePEM has no certificate in PEM form
}

func Example_secureServer() {
	server, err := driver.NewSecure(driver.Config{
		OnPacket: func(c driver.Conn, packet []byte) { _ = c.Send(packet) },
	})
	if err != nil {
		log.Fatal(err)
	}
	desc := driver.SecureDesc{CertificatePEM: read("server.pem"), PrivateKeyPEM: read("server-key.pem")}
	if err := server.InitializeSecurity(driver.Bind{Address: "127.0.0.1", Port: 7777}, desc); err != nil {
		log.Fatal(err)
	}
	if err := server.StartListen(0); err != nil {
		log.Fatal(err)
	}
}
