package tlsadapter_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	typeAlert       = 21
	typeHandshake   = 22
	typeApplication = 23
)

// rawPeer goes on with an established TLS 1.3 session in place of its client, record by record: crypto/tls cannot be
// asked for key updates, nor for messages in pieces.
type rawPeer struct{ out, in halfPeer }

// halfPeer protects the records of one direction (RFC 8446, sections 5.2, 5.3 and 7.3; TLS_AES_128_GCM_SHA256).
type halfPeer struct {
	secret []byte
	seq    uint64
}

// newRawPeer establishes a session and takes its client's place.
func newRawPeer(t testing.TB) (peer *rawPeer, server *end) {
	t.Helper()
	var keys bytes.Buffer
	clientCfg, serverCfg := clientConfig(), serverConfig()
	clientCfg.KeyLogWriter = &keys
	serverCfg.SessionTicketsDisabled = true // so that no record has been sent under the keys below
	c, s := establish(t, clientCfg, serverCfg)
	if suite := c.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("needs TLS_AES_128_GCM_SHA256, which crypto/tls prefers where AES is in hardware; got %s", tls.CipherSuiteName(suite))
	}
	secret := func(label string) []byte {
		for line := range strings.Lines(keys.String()) {
			if f := strings.Fields(line); f[0] == label {
				return must(hex.DecodeString(f[2]))
			}
		}
		panic("no " + label)
	}
	return &rawPeer{
		out: halfPeer{secret: secret("CLIENT_TRAFFIC_SECRET_0")},
		in:  halfPeer{secret: secret("SERVER_TRAFFIC_SECRET_0")},
	}, s
}

// seal makes a record.
func (h *halfPeer) seal(typ byte, payload string) []byte { return h.sealPadded(typ, payload, 0) }

// sealPadded makes one with n bytes of padding (RFC 8446, section 5.4).
func (h *halfPeer) sealPadded(typ byte, payload string, n int) []byte {
	aead, nonce := h.keys()
	inner := append(append([]byte(payload), typ), make([]byte, n)...)
	header := binary.BigEndian.AppendUint16([]byte{typeApplication, 3, 3}, uint16(len(inner)+aead.Overhead()))
	return append(header, aead.Seal(nil, nonce, inner, header)...)
}

// open takes the first record off wire.
func (h *halfPeer) open(t testing.TB, wire []byte) (typ byte, payload string, rest []byte) {
	t.Helper()
	require.GreaterOrEqual(t, len(wire), 5, "no record")
	n := 5 + int(binary.BigEndian.Uint16(wire[3:]))
	aead, nonce := h.keys()
	inner, err := aead.Open(nil, nonce, wire[5:n], wire[:5])
	require.NoError(t, err)
	last := len(inner) - 1
	return inner[last], string(inner[:last]), wire[n:]
}

// update goes on to the next keys.
func (h *halfPeer) update() {
	h.secret, h.seq = expandLabel(h.secret, "traffic upd", sha256.Size), 0
}

func (h *halfPeer) keys() (cipher.AEAD, []byte) {
	aead := must(cipher.NewGCM(must(aes.NewCipher(expandLabel(h.secret, "key", 16)))))
	nonce := expandLabel(h.secret, "iv", 12)
	for i := range 8 {
		nonce[4+i] ^= byte(h.seq >> (56 - 8*i))
	}
	h.seq++
	return aead, nonce
}

// expandLabel is HKDF-Expand-Label with an empty context.
func expandLabel(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	return must(hkdf.Expand(sha256.New, secret, fmt.Sprintf("\x00%c%c%s\x00", n, len(label), label), n))
}
