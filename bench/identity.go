package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"time"
)

// Identity is a certificate and its key.
type Identity struct{ CertificatePEM, PrivateKeyPEM []byte }

var (
	ecdsaIdentity = sync.OnceValue(func() *Identity {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return newIdentity(key, key.Public(), err)
	})
	rsaIdentity = sync.OnceValue(func() *Identity {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		return newIdentity(key, key.Public(), err)
	})
)

// identityFor is the certificate of a server with TLS, or none.
func identityFor(secure bool) *Identity {
	if secure {
		return ecdsaIdentity()
	}
	return nil
}

func newIdentity(key, public any, err error) *Identity {
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench"},
		DNSNames:     []string{"bench"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return &Identity{
		CertificatePEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		PrivateKeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}
