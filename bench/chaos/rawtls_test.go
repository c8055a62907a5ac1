//go:build linux

package chaos_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
)

// crypto/tls cannot be asked for key updates, nor for a second handshake: here a session of its goes on record by record.

// recorded is a connection, and what went over it.
type recorded struct {
	net.Conn
	in, out bytes.Buffer
}

func (r *recorded) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.in.Write(b[:n])
	return n, err
}

func (r *recorded) Write(b []byte) (int, error) {
	r.out.Write(b)
	return r.Conn.Write(b)
}

// logged finds a secret in a key log (NSS's SSLKEYLOGFILE).
func logged(keys, label string) []byte {
	for line := range strings.Lines(keys) {
		if f := strings.Fields(line); f[0] == label {
			secret, _ := hex.DecodeString(f[2])
			return secret
		}
	}
	return nil
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// sealer13 protects records (RFC 8446, sections 5.2, 5.3 and 7.3; TLS_AES_128_GCM_SHA256).
type sealer13 struct {
	secret []byte
	seq    uint64
}

func (s *sealer13) seal(typ byte, payload string) []byte {
	aead, nonce := gcm(expandLabel(s.secret, "key", 16)), expandLabel(s.secret, "iv", 12)
	for i := range 8 {
		nonce[4+i] ^= byte(s.seq >> (56 - 8*i))
	}
	s.seq++
	inner := append([]byte(payload), typ)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+aead.Overhead()))
	return append(header, aead.Seal(nil, nonce, inner, header)...)
}

func (s *sealer13) update() { s.secret, s.seq = expandLabel(s.secret, "traffic upd", sha256.Size), 0 }

func expandLabel(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := append([]byte{0, byte(n), byte(len(label))}, label+"\x00"...)
	out, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return out
}

// keyUpdates authenticates, and then asks for thousands of them, reads none, and has a byte between them, so that they are no useless records.
func (a *attackers) keyUpdates(nc *net.TCPConn) error {
	var keys bytes.Buffer
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keys, MinVersion: tls.VersionTLS13})
	if err := tc.Handshake(); err != nil {
		return err
	}
	if suite := tc.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		panic("no sealer for " + tls.CipherSuiteName(suite))
	}
	out := sealer13{secret: logged(keys.String(), "CLIENT_TRAFFIC_SECRET_0")}
	const requested = "\x18\x00\x00\x01\x01"
	packet := framed(1, 4000, 'K')
	records := out.seal(23, string(framed(1, 16, 'F')))
	for i := range packet {
		records = append(records, out.seal(22, requested)...)
		out.update()
		records = append(records, out.seal(23, string(packet[i:i+1]))...)
		if len(records) < 4<<10 {
			continue
		}
		if _, err := nc.Write(records); err != nil {
			return nil
		}
		records = records[:0]
	}
	waits(nc)
	return nil
}

// renegotiation sends a ClientHello in a session of TLS 1.2 (RFC 5246, section 7.4.1; RFC 5288 for the record).
func (a *attackers) renegotiation(nc *net.TCPConn) error {
	var keys bytes.Buffer
	wire := &recorded{Conn: nc}
	tc := tls.Client(wire, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keys, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
	if err := tc.Handshake(); err != nil {
		return err
	}
	hello := wire.out.Bytes()[5 : 5+binary.BigEndian.Uint16(wire.out.Bytes()[3:])]
	random := func(flight []byte) []byte { return flight[5+4+2:][:32] } // behind record, message and version
	block := prf12(logged(keys.String(), "CLIENT_RANDOM"), "key expansion",
		append(bytes.Clone(random(wire.in.Bytes())), random(wire.out.Bytes())...), 40)
	const seq = 1 // Finished was 0
	nonce := binary.BigEndian.AppendUint64(bytes.Clone(block[32:36]), seq)
	extra := binary.BigEndian.AppendUint16(append(nonce[4:12:12], 22, 3, 3), uint16(len(hello)))
	aead := gcm(block[:16])
	record := binary.BigEndian.AppendUint16([]byte{22, 3, 3}, uint16(8+len(hello)+aead.Overhead()))
	record = append(append(record, nonce[4:12]...), aead.Seal(nil, nonce, hello, extra)...)
	_, _ = nc.Write(record)
	waits(nc)
	return nil
}

// prf12 is TLS 1.2's P_SHA256 (RFC 5246, section 5).
func prf12(secret []byte, label string, seed []byte, n int) (out []byte) {
	seed = append([]byte(label), seed...)
	mac := func(b ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, b := range b {
			h.Write(b)
		}
		return h.Sum(nil)
	}
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}
