package driver

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// SecureDesc is GridMate's StreamSecureSocketDriverDesc: who this side is, and whom it believes. The TLS document has the
// ways to use it. The minimum version is TLS 1.2.
type SecureDesc struct {
	// PrivateKeyPEM is the key of CertificatePEM, not encrypted. A server needs both; a client only where servers set
	// AuthenticateClient.
	PrivateKeyPEM []byte
	// CertificatePEM is this side's certificate, followed by the intermediate ones.
	CertificatePEM []byte
	// CertificateAuthorityPEM is whom this side believes: the authorities of the peer's certificate; a self-signed one is
	// its own. A client without it believes the system's.
	CertificateAuthorityPEM []byte
	// AuthenticateClient: server: the client must present a certificate that the CA signed.
	AuthenticateClient bool
	// ServerName: client: the name that the server's certificate must carry. Empty with CertificateAuthorityPEM, any
	// certificate of that authority will do, whatever its name: GridMate's model, for a private authority. Without
	// CertificateAuthorityPEM, or with RootCAs that TLSConfig put in its place, it is required.
	ServerName string
	// TLSConfig, if set, has the last word on the configuration, e.g. ALPN, versions; called for the server's and for the
	// client's. InsecureSkipVerify is the only way to switch a client's verification off, which leaves a connection open to anybody in
	// between. A VerifyConnection that it sets comes on top of what is verified here.
	TLSConfig func(*tls.Config)
}

// tlsConfigs are what a SecureDesc comes to. Immutable.
type tlsConfigs struct {
	server, client *tls.Config
}

// clientSessions is how many TLS sessions a client keeps for resumption.
const clientSessions = 64

func (d *SecureDesc) configs() (*tlsConfigs, error) {
	certificates, err := d.certificates()
	if err != nil {
		return nil, err
	}
	authorities, err := d.authorities()
	if err != nil {
		return nil, err
	}
	base := tls.Config{
		Certificates: certificates,
		MinVersion:   tls.VersionTLS12,
		// Otherwise the first records of a connection hold a packet's worth, and a flush makes many of them.
		DynamicRecordSizingDisabled: true,
	}
	server, client := base.Clone(), base.Clone()
	if d.AuthenticateClient {
		if authorities == nil {
			return nil, secureError(ErrSecureCACert, errors.New("SecureDesc.AuthenticateClient needs CertificateAuthorityPEM"))
		}
		server.ClientAuth = tls.RequireAndVerifyClientCert
		server.ClientCAs = authorities
	}
	client.RootCAs = authorities
	client.ServerName = d.ServerName
	client.ClientSessionCache = tls.NewLRUClientSessionCache(clientSessions)
	if d.TLSConfig != nil {
		d.TLSConfig(server)
		d.TLSConfig(client)
	}
	// Any name is for the authorities of CertificateAuthorityPEM only: of RootCAs that TLSConfig put in their place, e.g. the system's, that
	// would be anybody. Without a name a client with those does not connect; see clientErr.
	if authorities != nil && client.RootCAs == authorities && d.ServerName == "" && client.ServerName == "" && !client.InsecureSkipVerify {
		verifyAnyName(client)
	}
	return &tlsConfigs{server: server, client: client}, nil
}

// verifyAnyName has c verify that the peer's certificate is of one of its authorities, and valid now, whatever its name. crypto/tls verifies the
// chain and the name together or not at all: the chain alone is verified in the one callback that resumed sessions go through as well. A
// VerifyConnection that c has comes behind it.
func verifyAnyName(c *tls.Config) {
	c.InsecureSkipVerify = true
	next := c.VerifyConnection
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("driver: the server presented no certificate")
		}
		options := x509.VerifyOptions{Roots: c.RootCAs, Intermediates: x509.NewCertPool()}
		for _, certificate := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(certificate)
		}
		if c.Time != nil {
			options.CurrentTime = c.Time()
		}
		if _, err := state.PeerCertificates[0].Verify(options); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		if next != nil {
			return next(state)
		}
		return nil
	}
}

// certificates is this side's certificate with its key, if it has one.
func (d *SecureDesc) certificates() ([]tls.Certificate, error) {
	switch hasCertificate, hasKey := len(d.CertificatePEM) > 0, len(d.PrivateKeyPEM) > 0; {
	case !hasCertificate && !hasKey:
		return nil, nil
	case !hasKey:
		return nil, secureError(ErrSecurePKey, errors.New("SecureDesc.CertificatePEM without PrivateKeyPEM"))
	case !hasCertificate:
		return nil, secureError(ErrSecureCert, errors.New("SecureDesc.PrivateKeyPEM without CertificatePEM"))
	}
	if _, err := parseCertificates("CertificatePEM", d.CertificatePEM); err != nil {
		return nil, secureError(ErrSecureCert, err)
	}
	if err := checkKey(d.PrivateKeyPEM); err != nil {
		return nil, secureError(ErrSecurePKey, err)
	}
	certificate, err := tls.X509KeyPair(d.CertificatePEM, d.PrivateKeyPEM)
	if err != nil {
		return nil, secureError(ErrSecurePKey, fmt.Errorf("SecureDesc.PrivateKeyPEM: %w", err))
	}
	return []tls.Certificate{certificate}, nil
}

func (d *SecureDesc) authorities() (*x509.CertPool, error) {
	if len(d.CertificateAuthorityPEM) == 0 {
		return nil, nil
	}
	certificates, err := parseCertificates("CertificateAuthorityPEM", d.CertificateAuthorityPEM)
	if err != nil {
		return nil, secureError(ErrSecureCACert, err)
	}
	pool := x509.NewCertPool()
	for _, certificate := range certificates {
		pool.AddCert(certificate)
	}
	return pool, nil
}

func parseCertificates(field string, data []byte) (certificates []*x509.Certificate, err error) {
	all := data
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("SecureDesc.%s: certificate %d: %w", field, len(certificates)+1, err)
		}
		certificates = append(certificates, certificate)
	}
	switch begun := bytes.Count(all, []byte("-----BEGIN CERTIFICATE-----")); { // pem.Decode skips what it cannot read
	case len(certificates) == 0:
		return nil, fmt.Errorf("SecureDesc.%s has no certificate in PEM form", field)
	case len(certificates) < begun:
		return nil, fmt.Errorf("SecureDesc.%s: %d of %d certificates are not in PEM form", field, begun-len(certificates), begun)
	}
	return certificates, nil
}

// checkKey tells what is wrong with a key that has no chance. Nothing of the key goes into an error.
func checkKey(data []byte) error {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return errors.New("SecureDesc.PrivateKeyPEM has no private key in PEM form")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || bytes.Contains([]byte(block.Headers["Proc-Type"]), []byte("ENCRYPTED")) {
			return errors.New("SecureDesc.PrivateKeyPEM is encrypted: decrypt it first")
		}
		if block.Type == "PRIVATE KEY" || bytes.HasSuffix([]byte(block.Type), []byte(" PRIVATE KEY")) {
			return nil
		}
	}
}

func secureError(code ResultCode, err error) error { return &Error{Code: code, Err: err} }

// serverErr is why there is no accepting connections with this configuration.
func (s *security) serverErr() error { return s.configs.Load().serverErr() }

func (t *tlsConfigs) serverErr() error {
	c := t.server
	if len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return errors.New("a server needs SecureDesc.CertificatePEM and PrivateKeyPEM")
	}
	return nil
}

// warnOfDates logs which certificates peers will refuse for their dates.
func (t *tlsConfigs) warnOfDates(log *slog.Logger) {
	now := time.Now()
	for _, certificate := range t.server.Certificates {
		if leaf := certificate.Leaf; leaf != nil && (now.Before(leaf.NotBefore) || now.After(leaf.NotAfter)) {
			log.Warn("driver: a certificate is not valid now: who verifies it refuses it",
				"subject", leaf.Subject.String(), "notBefore", leaf.NotBefore, "notAfter", leaf.NotAfter)
		}
	}
}

// clientErr is why there is no connecting with this configuration.
func (s *security) clientErr() error {
	c := s.configs.Load().client
	if c.ServerName == "" && !c.InsecureSkipVerify {
		return errors.New("a client needs SecureDesc.ServerName, or CertificateAuthorityPEM, left as RootCAs, for any name of a private authority")
	}
	return nil
}
