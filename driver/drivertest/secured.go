package drivertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"time"

	"gridstream/driver"
)

// SecureDriver is a driver.Driver as *driver.SecureStream is one.
type SecureDriver interface {
	driver.Driver
	InitializeSecurity(driver.Bind, driver.SecureDesc) error
}

// Secured is d with an Initialize that secures it, with a certificate made for this process that is its own authority: what
// Run takes of a secure implementation. They can all talk to one another.
func Secured(d SecureDriver) driver.Driver { return secured{d} }

type secured struct{ SecureDriver }

func (s secured) Initialize(b driver.Bind) error {
	desc, err := Development()
	if err != nil {
		return err
	}
	return s.InitializeSecurity(b, desc)
}

// Development is the certificate of Secured.
var Development = sync.OnceValues(func() (desc driver.SecureDesc, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return desc, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "drivertest"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return desc, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return desc, err
	}
	desc.CertificatePEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	desc.PrivateKeyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	desc.CertificateAuthorityPEM = desc.CertificatePEM
	return desc, nil
})
