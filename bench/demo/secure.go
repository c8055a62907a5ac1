package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"time"

	"gridstream/driver"
)

// serverName is in the server's certificate.
const serverName = "gridstream.demo"

// newIdentity makes a certificate for one run, which is its own authority.
func newIdentity() (*driver.SecureDesc, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: serverName},
		DNSNames:              []string{serverName},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &driver.SecureDesc{
		PrivateKeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		CertificatePEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
	}, nil
}

// trusting has players accept the server with that certificate; nil without one.
func trusting(certificate []byte) *driver.SecureDesc {
	if certificate == nil {
		return nil
	}
	return &driver.SecureDesc{CertificateAuthorityPEM: certificate, ServerName: serverName}
}

func newSecureDriver(cfg driver.Config, bind driver.Bind, desc driver.SecureDesc) (driver.Driver, error) {
	d, err := driver.NewSecure(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.InitializeSecurity(bind, desc); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// secureConn is conn as a player's TLS connection that trusts certificate.
func secureConn(conn net.Conn, certificate []byte) net.Conn {
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(certificate)
	return tls.Client(conn, &tls.Config{RootCAs: authorities, ServerName: serverName})
}
