package driver_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
	"gridstream/driver/drivertest"
)

// identity is a certificate and its key.
type identity struct {
	certificate *x509.Certificate
	key         crypto.Signer
	certPEM     []byte
	keyPEM      []byte
}

// template are the parts of a certificate that tests vary.
type template struct {
	name     string
	issuer   *identity // nil: self-signed
	notAfter time.Time
	rsa      bool
	san      bool
	ca       bool // signs others, though it has an issuer
}

func newIdentity(t testing.TB, tpl template) *identity {
	t.Helper()
	id := &identity{}
	var err error
	if tpl.rsa {
		id.key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		id.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	if tpl.notAfter.IsZero() {
		tpl.notAfter = time.Now().Add(24 * time.Hour)
	}
	cert := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: tpl.name},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              tpl.notAfter,
		IsCA:                  tpl.issuer == nil || tpl.ca,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if tpl.san {
		cert.DNSNames = []string{tpl.name}
		cert.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	parent, signer := cert, id.key
	if tpl.issuer != nil {
		parent, signer = tpl.issuer.certificate, tpl.issuer.key
		cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, id.key.Public(), signer)
	require.NoError(t, err)
	id.certificate, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(id.key)
	require.NoError(t, err)
	id.certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	id.keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return id
}

// development is a self-signed certificate that is its own authority.
var development = sync.OnceValue(func() *identity {
	return newIdentity(&testing.T{}, template{name: "development"})
})

func developmentDesc() driver.SecureDesc {
	id := development()
	return driver.SecureDesc{CertificatePEM: id.certPEM, PrivateKeyPEM: id.keyPEM, CertificateAuthorityPEM: id.certPEM}
}

func newSecured(cfg driver.Config) (driver.Driver, error) {
	s, err := driver.NewSecure(cfg)
	if err != nil {
		return nil, err
	}
	return drivertest.Secured(s), nil
}
