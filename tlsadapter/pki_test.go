package tlsadapter_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"time"
)

// authority issues the certificates of these tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// pool is what trusts the authority.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue signs a certificate for localhost, valid until notAfter, for clients and servers.
func (a *authority) issue(key crypto.Signer, notAfter time.Time) tls.Certificate {
	der := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost", "game.example"},
		NotBefore:    time.Now().Add(-48 * time.Hour),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newAuthority(name string) *authority {
	key := newECDSA()
	der := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: name}}, key.Public(), key))
	return &authority{cert: must(x509.ParseCertificate(der)), key: key}
}

func newECDSA() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// identities are made once: key generation is slow under -race.
type identities struct {
	ca, otherCA        *authority
	ecdsa, rsa         tls.Certificate // signed by ca
	expired, fromOther tls.Certificate
}

var pki = sync.OnceValue(func() *identities {
	ca, other := newAuthority("test authority"), newAuthority("other authority")
	soon := time.Now().Add(24 * time.Hour)
	return &identities{
		ca: ca, otherCA: other,
		ecdsa:     ca.issue(newECDSA(), soon),
		rsa:       ca.issue(must(rsa.GenerateKey(rand.Reader, 2048)), soon),
		expired:   ca.issue(newECDSA(), time.Now().Add(-24*time.Hour)),
		fromOther: other.issue(newECDSA(), soon),
	}
})

// serverConfig and clientConfig trust each other's authority; tests change the copy they get.
func serverConfig() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{pki().ecdsa},
		ClientCAs:    pki().ca.pool(),
	}
}

func clientConfig() *tls.Config {
	return &tls.Config{
		RootCAs:    pki().ca.pool(),
		ServerName: "localhost",
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
